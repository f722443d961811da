#include "irrep_wgrad_simt.h"

#include "irrep_wgrad_kernel.h"

namespace gconv::cuda {
namespace {

template <typename T>
struct SimtTile : SimtProduct<T, simt_wgrad_tile(sizeof(T)).in_fields, simt_wgrad_tile(sizeof(T)).out_fields> {
  static constexpr int kWarps = simt_wgrad_tile(sizeof(T)).warps;
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
