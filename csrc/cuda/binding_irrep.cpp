#include <ATen/ops/empty.h>
#include <c10/core/DeviceGuard.h>

#include "../irrep_checks.h"
#include "binding.h"
#include "binding_launch.h"
#include "irrep.h"

namespace gconv {
namespace {

cuda::IrrepFpropParams fprop_params(const IrrepLayer& layer) {
  cuda::IrrepFpropParams params;
  params.shape = layer.shape;
  params.type = layer.type;
  params.tf32 = tf32_allowed();
  params.banks = layer.banks();
  params.relax_input = layer.relax_input;
  return params;
}

void launch_fprop(cuda::IrrepFpropParams& params, const at::Tensor& x, const at::Tensor& y, const char* op) {
  const c10::DeviceGuard guard(x.device());
  params.x = x.const_data_ptr();
  params.x_strides = map_strides(x);
  params.y = y.mutable_data_ptr();
  params.y_strides = map_strides(y);
  const at::Tensor workspace = at::empty({cuda::irrep_fprop_workspace(params)}, x.options().dtype(at::kByte));
  params.workspace = workspace.mutable_data_ptr();
  check_launch(cuda::irrep_fprop(params, current_stream(x)), op);
}

}  // namespace

at::Tensor irrep_fprop_cuda(const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& relaxed_weight, const std::optional<at::Tensor>& bias,
                            const std::optional<at::Tensor>& transformed_weight, std::string_view group,
                            std::string_view relax_on, at::IntArrayRef stride, at::IntArrayRef padding,
                            at::IntArrayRef dilation, int64_t groups, bool relu) {
  const IrrepLayer layer =
      fprop_layer(x, weight, relaxed_weight, bias, group, relax_on, {stride, padding, dilation}, groups);
  if (transformed_weight) check_transformed_weight(*transformed_weight, layer, weight, weight.scalar_type());
  cuda::IrrepFpropParams params = fprop_params(layer);

  const at::Tensor weight_c = weight.contiguous(), bias_c = bias ? bias->contiguous() : at::Tensor();
  const at::Tensor relaxed_weight_c = relaxed_weight ? relaxed_weight->contiguous() : at::Tensor();
  const at::Tensor transformed_c = transformed_weight ? transformed_weight->contiguous() : at::Tensor();
  const ConvShape& s = layer.shape;
  at::Tensor y = empty_map_like(x, groups * s.out_fields, s.order(), s.rows.out, s.columns.out);
  params.weight = weight_c.const_data_ptr();
  params.transformed_weight = transformed_weight ? transformed_c.const_data_ptr() : nullptr;
  params.relaxed_weight = relaxed_weight ? relaxed_weight_c.const_data_ptr() : nullptr;
  params.bias = bias ? bias_c.const_data_ptr() : nullptr;
  params.relu = relu;
  launch_fprop(params, x, y, "irrep_fprop");
  return y;
}

at::Tensor irrep_transform_weight_cuda(const at::Tensor& weight, const std::optional<at::Tensor>& relaxed_weight,
                                       std::string_view group, std::string_view relax_on, int64_t groups) {
  const IrrepLayer layer = weight_layer(weight, relaxed_weight, group, relax_on, groups);
  cuda::IrrepFpropParams params = fprop_params(layer);

  const at::Tensor weight_c = weight.contiguous();
  at::Tensor transformed = at::empty({cuda::irrep_transformed_numbers(params)}, weight.options());
  params.weight = weight_c.const_data_ptr();

  const c10::DeviceGuard guard(weight.device());
  check_launch(cuda::irrep_transform_weight(params, transformed.mutable_data_ptr(), current_stream(weight)),
               "irrep_transform_weight");
  return transformed;
}

at::Tensor irrep_dgrad_cuda(const at::Tensor& dy_, const at::Tensor& weight,
                            const std::optional<at::Tensor>& relaxed_weight, const std::optional<at::Tensor>& activated,
                            std::string_view group, std::string_view relax_on, at::IntArrayRef input_size,
                            at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups) {
  const auto [dy, mask] = masked_gradient(dy_, activated);
  const IrrepLayer layer =
      dgrad_layer(dy, weight, relaxed_weight, group, relax_on, input_size, {stride, padding, dilation}, groups);
  cuda::IrrepFpropParams params = fprop_params(layer);

  const at::Tensor weight_c = weight.contiguous();
  const at::Tensor relaxed_weight_c = relaxed_weight ? relaxed_weight->contiguous() : at::Tensor();
  const ConvShape& s = layer.shape;
  at::Tensor dx = empty_map_like(dy, groups * s.out_fields, s.order(), s.rows.out, s.columns.out);
  params.adjoint = true;
  params.x_activated = mask;
  params.weight = weight_c.const_data_ptr();
  params.relaxed_weight = relaxed_weight ? relaxed_weight_c.const_data_ptr() : nullptr;
  launch_fprop(params, dy, dx, "irrep_dgrad");
  return dx;
}

at::Tensor irrep_wgrad_cuda(const at::Tensor& x, const at::Tensor& dy_, const std::optional<at::Tensor>& relaxed_weight,
                            const std::optional<at::Tensor>& activated, std::string_view group,
                            std::string_view relax_on, int64_t kernel_size, at::IntArrayRef stride,
                            at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups) {
  const auto [dy, mask] = masked_gradient(dy_, activated);
  const IrrepLayer layer =
      wgrad_layer(x, dy, relaxed_weight, group, relax_on, kernel_size, {stride, padding, dilation}, groups);
  cuda::IrrepWgradParams params;
  params.shape = layer.shape;
  params.type = layer.type;
  params.tf32 = tf32_allowed();
  params.banks = layer.banks();
  params.relax_input = layer.relax_input;

  const at::Tensor relaxed_weight_c = relaxed_weight ? relaxed_weight->contiguous() : at::Tensor();
  at::Tensor grad_weight = at::empty(weight_sizes(layer.shape, layer.relaxed_banks), x.options());
  params.x = x.const_data_ptr();
  params.x_strides = map_strides(x);
  params.dy = dy.const_data_ptr();
  params.dy_activated = mask;
  params.dy_strides = map_strides(dy);
  params.relaxed_weight = relaxed_weight ? relaxed_weight_c.const_data_ptr() : nullptr;
  params.grad_weight = grad_weight.mutable_data_ptr();

  const c10::DeviceGuard guard(x.device());
  const at::Tensor workspace = at::empty({cuda::irrep_wgrad_workspace(params)}, x.options().dtype(at::kByte));
  params.workspace = workspace.mutable_data_ptr();
  check_launch(cuda::irrep_wgrad(params, current_stream(x)), "irrep_wgrad");
  return grad_weight;
}

}  // namespace gconv
