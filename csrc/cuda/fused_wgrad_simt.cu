#include "fused_wgrad_kernel.h"

namespace gconv::cuda {
namespace {

template <typename T, int Rows, int Columns>
using WarpProduct = SimtProduct<T, Rows / 2, Columns / 2, Rows + kPadding, Columns + kPadding>;

template <typename T>
cudaError_t launch(const FusedWgradParams& params, const FusedWgradPlan& plan, cudaStream_t stream) {
  if (plan.rows == 64) return launch_fused_wgrad<T, WarpProduct<T, 64, 64>>(params, plan, stream);
  if (plan.columns == 64) return launch_fused_wgrad<T, WarpProduct<T, 32, 64>>(params, plan, stream);
  return launch_fused_wgrad<T, WarpProduct<T, 32, 32>>(params, plan, stream);
}

}  // namespace

cudaError_t fused_wgrad_simt(const FusedWgradParams& params, const FusedWgradPlan& plan, cudaStream_t stream) {
  return params.type == ScalarType::Float64 ? launch<double>(params, plan, stream)
                                            : launch<float>(params, plan, stream);
}

}  // namespace gconv::cuda
