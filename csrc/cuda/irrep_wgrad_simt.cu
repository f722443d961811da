#include "irrep_wgrad_simt.h"

#include "irrep_wgrad_kernel.h"

namespace gconv::cuda {
namespace {

// Each lane sums 4 in fields × 2 out fields, or 1 in float64.
template <typename T>
struct SimtTile {
  static constexpr WgradTile kTile = simt_wgrad_tile(sizeof(T));
  static constexpr int kIn = kTile.in_fields, kOut = kTile.out_fields, kWarps = kTile.warps;
  static constexpr int kPixels = wgrad_step_pixels(sizeof(T)), kInLane = 4, kOutLane = kOut / 8;
  static constexpr bool kTf32 = false;
  using Sums = T[kInLane * kOutLane];

  template <int N>
  struct alignas(std::min<size_t>(16, N * sizeof(T))) Numbers {
    T number[N];
  };
  using Y = Numbers<kOutLane>[kPixels];

  static __device__ int in_lane() { return threadIdx.x % (kIn / kInLane); }
  static __device__ int out_lane() { return threadIdx.x % 32 / (kIn / kInLane); }
  static __device__ int in_field(int i) { return in_lane() * kInLane + i % kInLane; }
  static __device__ int out_field(int i) { return out_lane() * kOutLane + i / kInLane; }

  static __device__ __forceinline__ void read(Y& y, const T* plane) {
#pragma unroll
    for (int pixel = 0; pixel < kPixels; ++pixel)
      y[pixel] = *reinterpret_cast<const Numbers<kOutLane>*>(plane + pixel * (kOut + kPadding) + out_lane() * kOutLane);
  }

  template <bool Negated>
  static __device__ __forceinline__ void add(Sums& sums, const Y& y, const T* plane) {
#pragma unroll
    for (int pixel = 0; pixel < kPixels; ++pixel) {
      const auto x =
          *reinterpret_cast<const Numbers<kInLane>*>(plane + pixel * (kIn + kPadding) + in_lane() * kInLane);
#pragma unroll
      for (int i = 0; i < kInLane * kOutLane; ++i) {
        const T product = x.number[i % kInLane] * y[pixel].number[i / kInLane];
        sums[i] += Negated ? -product : product;
      }
    }
  }
};

template <typename T>
cudaError_t launch(const IrrepWgradParams& params, const WgradPlan& plan, cudaStream_t stream) {
  return with_fourier_table(params.shape.group->name, [&](auto group) {
    return launch_irrep_wgrad<T, decltype(group), SimtTile<T>>(params, plan, stream);
  });
}

}  // namespace

cudaError_t irrep_wgrad_simt(const IrrepWgradParams& params, const WgradPlan& plan, cudaStream_t stream) {
  return params.type == ScalarType::Float64 ? launch<double>(params, plan, stream)
                                            : launch<float>(params, plan, stream);
}

}  // namespace gconv::cuda
