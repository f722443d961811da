#include "irrep_wgrad_mma.h"

#include "irrep_wgrad_kernel.h"

namespace gconv::cuda {
namespace {

// dΨ̂ [in, out] in tiles of 16 × 8, whose inner dimension, the pixels, is that of the rows in shared memory: the 16-bit
// types are transposed by ldmatrix, tf32 is read number by number.
template <typename T, int Order, bool Wide>
struct MmaTile {
  static constexpr WgradTile kTile = mma_wgrad_tile(Order, Wide);
  static constexpr int kIn = kTile.in_fields, kOut = kTile.out_fields, kWarps = kTile.warps;
  static constexpr int kInPitch = kIn + kPadding, kOutPitch = kOut + kPadding;
  static constexpr bool kTf32 = std::is_same_v<T, float>;
  struct Sums {
    float tile[kIn / 16][kOut / 8][4];
    __device__ float operator[](int i) const { return tile[i / (kOut / 2)][i / 4 % (kOut / 8)][i % 4]; }
  };
  struct Y {
    uint32_t tile[kOut / 8][2];
  };

  static __device__ int lane() { return threadIdx.x % 32; }
  static __device__ int in_field(int i) { return i / (kOut / 2) * 16 + i % 4 / 2 * 8 + lane() / 4; }
  static __device__ int out_field(int i) { return i / 4 % (kOut / 8) * 8 + lane() % 4 * 2 + i % 2; }

  static __device__ __forceinline__ void read(Y& y, const T* plane) {
#pragma unroll
    for (int field = 0; field < kOut; field += 16) {
      auto& low = y.tile[field / 8];
      auto& high = y.tile[field / 8 + 1];
      if constexpr (kTf32) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const T* from = plane + (lane() % 4 + 4 * i) * kOutPitch + field + lane() / 4;
          low[i] = __float_as_uint(from[0]);
          high[i] = __float_as_uint(from[8]);
        }
      } else {
        uint32_t both[4];
        ldmatrix_x4_trans(both, plane + lane() % 16 * kOutPitch + field + lane() / 16 * 8);
        low[0] = both[0], low[1] = both[1], high[0] = both[2], high[1] = both[3];
      }
    }
  }

  template <bool Negated>
  static __device__ __forceinline__ void add(Sums& sums, const Y& y, const T* plane) {
#pragma unroll
    for (int field = 0; field < kIn; field += 16) {
      uint32_t x[4];
      if constexpr (kTf32) {
#pragma unroll
        for (int i = 0; i < 4; ++i)
          x[i] = __float_as_uint(plane[(lane() % 4 + i / 2 * 4) * kInPitch + field + i % 2 * 8 + lane() / 4]);
      } else {
        ldmatrix_x4_trans(x, plane + (lane() % 8 + lane() / 16 * 8) * kInPitch + field + lane() / 8 % 2 * 8);
      }
      if constexpr (Negated)
        for (uint32_t& word : x) word ^= kTf32 ? 0x80000000u : 0x80008000u;
#pragma unroll
      for (int column = 0; column < kOut / 8; ++column) {
        if constexpr (kTf32)
          mma_m16n8k8(sums.tile[field / 16][column], x, y.tile[column]);
        else
          mma_m16n8k16<T>(sums.tile[field / 16][column], x, y.tile[column]);
      }
    }
  }
};

template <typename T>
cudaError_t launch(const IrrepWgradParams& params, const WgradPlan& plan, cudaStream_t stream) {
  return with_fourier_table(params.shape.group->name, [&](auto group) {
    using Group = decltype(group);
    constexpr int order = Group::table.order;
    return plan.wide ? launch_irrep_wgrad<T, Group, MmaTile<T, order, true>>(params, plan, stream)
                     : launch_irrep_wgrad<T, Group, MmaTile<T, order, false>>(params, plan, stream);
  });
}

}  // namespace

cudaError_t irrep_wgrad_mma(const IrrepWgradParams& params, const WgradPlan& plan, cudaStream_t stream) {
  switch (params.type) {
    case ScalarType::BFloat16: return launch<__nv_bfloat16>(params, plan, stream);
    case ScalarType::Float16: return launch<__half>(params, plan, stream);
    case ScalarType::Float32: return launch<float>(params, plan, stream);
    default: return cudaErrorInvalidValue;
  }
}

}  // namespace gconv::cuda
