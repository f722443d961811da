#include "irrep_wgrad_mma.h"

#include "irrep_wgrad_kernel.h"

namespace gconv::cuda {
namespace {

template <typename T, int Order, bool Wide>
struct MmaTile : MmaProduct<T, mma_wgrad_tile(Order, Wide).in_fields, mma_wgrad_tile(Order, Wide).out_fields> {
  static constexpr int kWarps = mma_wgrad_tile(Order, Wide).warps;
};

template <typename T>
cudaError_t launch(const IrrepWgradParams& params, const WgradPlan& plan, cudaStream_t stream) {
  return with_fourier_table(params.shape.group->name, [&](auto group) {
    using Group = decltype(group);
    constexpr int order = Group::table.order;
    return plan.kernel == WgradKernel::WideMma
               ? launch_irrep_wgrad<T, Group, MmaTile<T, order, true>>(params, plan, stream)
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
