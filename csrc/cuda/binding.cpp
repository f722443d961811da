// Between torch and the CUDA kernels; binding_irrep.cpp and binding_fused.cpp have the convolutions. Each op in one
// order: checks, contiguous tensors with names, the device and its current stream, launch, check of the launch.
#include "binding.h"

#include <ATen/ops/empty.h>
#include <c10/core/DeviceGuard.h>

#include "../filter_checks.h"
#include "binding_launch.h"
#include "expand_filter.h"

namespace gconv {

at::Tensor expand_filter_cuda(const at::Tensor& weight, const std::optional<at::Tensor>& relaxed_weight,
                              std::string_view group, std::string_view relax_on) {
  cuda::ExpandFilterParams params;
  params.type = scalar_type(weight, "weight");
  params.relax_on = parse_relax_on(relax_on);
  params.shape = filter_shape(weight, relaxed_weight, group, params.relax_on);

  const at::Tensor weight_c = weight.contiguous();
  const at::Tensor relaxed_weight_c = relaxed_weight ? relaxed_weight->contiguous() : at::Tensor();
  at::Tensor filter = at::empty(filter_sizes(params.shape), weight.options());
  params.weight = weight_c.const_data_ptr();
  params.relaxed_weight = relaxed_weight ? relaxed_weight_c.const_data_ptr() : nullptr;
  params.filter = filter.mutable_data_ptr();

  const c10::DeviceGuard guard(weight.device());
  check_launch(cuda::expand_filter(params, current_stream(weight)), "expand_filter");
  return filter;
}

std::tuple<at::Tensor, at::Tensor> expand_filter_backward_cuda(const at::Tensor& grad_filter, const at::Tensor& weight,
                                                               const std::optional<at::Tensor>& relaxed_weight,
                                                               std::string_view group, std::string_view relax_on,
                                                               std::array<bool, 2> output_mask) {
  cuda::ExpandFilterBackwardParams params;
  params.type = scalar_type(weight, "weight");
  params.relax_on = parse_relax_on(relax_on);
  params.shape = filter_shape(weight, relaxed_weight, group, params.relax_on);
  check_backward(grad_filter, weight, relaxed_weight, params.shape, output_mask);

  const at::Tensor grad_filter_c = grad_filter.contiguous(), weight_c = weight.contiguous();
  const at::Tensor relaxed_weight_c = relaxed_weight ? relaxed_weight->contiguous() : at::Tensor();
  at::Tensor grad_weight = at::empty(output_mask[0] ? weight.sizes() : at::IntArrayRef{0}, weight.options());
  at::Tensor grad_relaxed_weight =
      at::empty(output_mask[1] ? relaxed_weight->sizes() : at::IntArrayRef{0}, weight.options());
  at::Tensor workspace = at::empty({output_mask[1] ? cuda::expand_filter_backward_workspace(params.shape) : 0},
                                   weight.options().dtype(at::kDouble));
  params.weight = weight_c.const_data_ptr();
  params.relaxed_weight = relaxed_weight ? relaxed_weight_c.const_data_ptr() : nullptr;
  params.grad_filter = grad_filter_c.const_data_ptr();
  params.grad_weight = output_mask[0] ? grad_weight.mutable_data_ptr() : nullptr;
  params.grad_relaxed_weight = output_mask[1] ? grad_relaxed_weight.mutable_data_ptr() : nullptr;
  params.workspace = workspace.mutable_data_ptr<double>();

  const c10::DeviceGuard guard(weight.device());
  check_launch(cuda::expand_filter_backward(params, current_stream(weight)), "expand_filter_backward");
  return {grad_weight, grad_relaxed_weight};
}

}  // namespace gconv
