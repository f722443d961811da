#include "irrep_wgrad_direct_kernel.h"

namespace gconv::cuda {
namespace {

// The four warps of a block multiply together, each with a job of its own as 16 of the 64 rows of A.
template <typename T, typename Group, int Tiles, int Columns>
struct DirectWgmma {
#ifdef GCONV_HAS_WGMMA
  static constexpr bool kCompiled = true;
#else
  static constexpr bool kCompiled = false;  // wgmma_allowed
#endif
  static constexpr int order = Group::table.order, kTiles = Tiles, kColumns = Columns;
  static constexpr bool kReadsAhead = order < 8;

  __device__ __forceinline__ static void add(float (&sums)[order][Tiles][Columns / 8][4],
                                             const uint32_t (&x)[order][Tiles][4],
                                             const YStep<T, order, Columns>& y_step) {
    wgmma_fence();
    for_each_index<order>([&](auto y_plane) {
      constexpr int kPlane = y_plane;
      const uint64_t rows = SwizzledRows<Columns>::descriptor(y_step[kPlane]);
      for_each_product_of_y<Group, kPlane>([&](auto x_plane, auto w_plane, auto negated) {
#pragma unroll
        for (int tile = 0; tile < Tiles; ++tile) wgmma_m64k16<T, negated>(sums[w_plane][tile], x[x_plane][tile], rows);
      });
    });
    wgmma_commit();
    wgmma_wait();
  }
  __device__ static void store(T* to, uint4 chunk) { store_for_wgmma(to, chunk); }
  __device__ static void publish() { fence_proxy_async(); }
};

}  // namespace

template <typename T>
cudaError_t irrep_wgrad_direct_wgmma(const IrrepWgradParams& params, const WgradPlan& plan, cudaStream_t stream) {
  return launch_tiles<T, DirectWgmma, false>(params, plan, stream);
}
template cudaError_t irrep_wgrad_direct_wgmma<__nv_bfloat16>(const IrrepWgradParams&, const WgradPlan&, cudaStream_t);
template cudaError_t irrep_wgrad_direct_wgmma<__half>(const IrrepWgradParams&, const WgradPlan&, cudaStream_t);

}  // namespace gconv::cuda
