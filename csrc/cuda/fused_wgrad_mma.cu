#include "fused_wgrad_kernel.h"

namespace gconv::cuda {
namespace {

template <typename T, int Rows, int Columns>
using WarpProduct = MmaProduct<T, Rows / 2, Columns / 2, Rows + kPadding, Columns + kPadding>;

template <typename T>
cudaError_t launch(const FusedWgradParams& params, const FusedWgradPlan& plan, cudaStream_t stream) {
  if (plan.rows == 128) return launch_fused_wgrad<T, WarpProduct<T, 128, 128>>(params, plan, stream);
  if (plan.rows == 64) return launch_fused_wgrad<T, WarpProduct<T, 64, 64>>(params, plan, stream);
  if (plan.columns == 64) return launch_fused_wgrad<T, WarpProduct<T, 32, 64>>(params, plan, stream);
  return launch_fused_wgrad<T, WarpProduct<T, 32, 32>>(params, plan, stream);
}

}  // namespace

cudaError_t fused_wgrad_mma(const FusedWgradParams& params, const FusedWgradPlan& plan, cudaStream_t stream) {
  switch (params.type) {
    case ScalarType::BFloat16: return launch<__nv_bfloat16>(params, plan, stream);
    case ScalarType::Float16: return launch<__half>(params, plan, stream);
    case ScalarType::Float32: return launch<float>(params, plan, stream);
    default: return cudaErrorInvalidValue;
  }
}

}  // namespace gconv::cuda
