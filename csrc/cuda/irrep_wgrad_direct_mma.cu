#include "irrep_wgrad_direct_kernel.h"

namespace gconv::cuda {
namespace {

template <typename T, typename Group, int Tiles, int Columns>
struct DirectMma {
  static constexpr bool kCompiled = true;
  static constexpr int order = Group::table.order, kTiles = Tiles, kColumns = Columns, kUnits = Columns / 8;
  static constexpr bool kReadsAhead = order * Tiles < 8;

  __device__ __forceinline__ static void add(float (&sums)[order][Tiles][kUnits][4],
                                             const uint32_t (&x)[order][Tiles][4],
                                             const YStep<T, order, Columns>& y_step) {
    const int lane = threadIdx.x % 32;
    for_each_index<order>([&](auto y_plane) {
      constexpr int kPlane = y_plane;
      uint32_t y[kUnits][2];
#pragma unroll
      for (int unit = 0; unit < kUnits; unit += 2) {
        uint32_t both[4];
        ldmatrix_x4_trans(both, &y_step[kPlane][0][0] + SwizzledRows<Columns>::place(lane % 16, unit + lane / 16));
        y[unit][0] = both[0], y[unit][1] = both[1], y[unit + 1][0] = both[2], y[unit + 1][1] = both[3];
      }
      for_each_product_of_y<Group, kPlane>([&](auto x_plane, auto w_plane, auto negated) {
#pragma unroll
        for (int tile = 0; tile < Tiles; ++tile) {
          uint32_t a[4];
#pragma unroll
          for (int i = 0; i < 4; ++i) a[i] = x[x_plane][tile][i] ^ (negated ? Operand<T>::kSigns : 0);
#pragma unroll
          for (int unit = 0; unit < kUnits; ++unit) mma_m16n8k16<T>(sums[w_plane][tile][unit], a, y[unit]);
        }
      });
    });
  }
  __device__ static void store(T* to, uint4 chunk) { *reinterpret_cast<uint4*>(to) = chunk; }
  __device__ static void publish() {}
};

}  // namespace

template <typename T>
cudaError_t irrep_wgrad_direct_mma(const IrrepWgradParams& params, const WgradPlan& plan, cudaStream_t stream) {
  return launch_tiles<T, DirectMma, true>(params, plan, stream);
}
template cudaError_t irrep_wgrad_direct_mma<__nv_bfloat16>(const IrrepWgradParams&, const WgradPlan&, cudaStream_t);
template cudaError_t irrep_wgrad_direct_mma<__half>(const IrrepWgradParams&, const WgradPlan&, cudaStream_t);

}  // namespace gconv::cuda
