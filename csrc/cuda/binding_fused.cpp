#include <ATen/ops/empty.h>
#include <c10/core/DeviceGuard.h>

#include "../irrep_checks.h"
#include "binding.h"
#include "binding_launch.h"
#include "fused.h"

namespace gconv {
namespace {

template <typename Params>
Params params_of(const IrrepLayer& layer) {
  Params params;
  params.shape = layer.shape;
  params.type = layer.type;
  params.tf32 = tf32_allowed();
  params.banks = layer.banks();
  params.relax_input = layer.relax_input;
  return params;
}

void launch_fprop(cuda::FusedFpropParams& params, const at::Tensor& x, const at::Tensor& y, const char* op) {
  const c10::DeviceGuard guard(x.device());
  params.x = x.const_data_ptr();
  params.x_strides = map_strides(x);
  params.y = y.mutable_data_ptr();
  params.y_strides = map_strides(y);
  check_launch(cuda::fused_fprop(params, current_stream(x)), op);
}

}  // namespace

at::Tensor fused_fprop_cuda(const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& relaxed_weight, const std::optional<at::Tensor>& bias,
                            const std::optional<at::Tensor>& transformed_weight, std::string_view group,
                            std::string_view relax_on, at::IntArrayRef stride, at::IntArrayRef padding,
                            at::IntArrayRef dilation, int64_t groups, bool relu) {
  const IrrepLayer layer =
      fprop_layer(x, weight, relaxed_weight, bias, group, relax_on, {stride, padding, dilation}, groups);
  TORCH_CHECK_VALUE(!transformed_weight, "transformed_weight must be None: the fused form takes the weight as it is");
  auto params = params_of<cuda::FusedFpropParams>(layer);

  const at::Tensor weight_c = weight.contiguous(), bias_c = bias ? bias->contiguous() : at::Tensor();
  const at::Tensor relaxed_weight_c = relaxed_weight ? relaxed_weight->contiguous() : at::Tensor();
  const ConvShape& s = layer.shape;
  at::Tensor y = empty_map_like(x, groups * s.out_fields, s.order(), s.rows.out, s.columns.out);
  params.weight = weight_c.const_data_ptr();
  params.relaxed_weight = relaxed_weight ? relaxed_weight_c.const_data_ptr() : nullptr;
  params.bias = bias ? bias_c.const_data_ptr() : nullptr;
  params.relu = relu;
  launch_fprop(params, x, y, "fused_fprop");
  return y;
}

at::Tensor fused_dgrad_cuda(const at::Tensor& dy_, const at::Tensor& weight,
                            const std::optional<at::Tensor>& relaxed_weight, const std::optional<at::Tensor>& activated,
                            std::string_view group, std::string_view relax_on, at::IntArrayRef input_size,
                            at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups) {
  const auto [dy, mask] = masked_gradient(dy_, activated);
  const IrrepLayer layer = dgrad_layer(dy, weight, relaxed_weight, group, relax_on, input_size,
                                       {stride, padding, dilation}, groups, /*images=*/true);
  auto params = params_of<cuda::FusedFpropParams>(layer);

  const at::Tensor weight_c = weight.contiguous();
  const at::Tensor relaxed_weight_c = relaxed_weight ? relaxed_weight->contiguous() : at::Tensor();
  const ConvShape& s = layer.shape;
  const int64_t elements = s.lifting ? 1 : s.order();
  const at::Tensor dx = empty_map_like(dy, groups * s.out_fields, elements, s.rows.out, s.columns.out);
  params.adjoint = true;
  params.x_activated = mask;
  params.weight = weight_c.const_data_ptr();
  params.relaxed_weight = relaxed_weight ? relaxed_weight_c.const_data_ptr() : nullptr;
  launch_fprop(params, dy, dx, "fused_dgrad");
  return s.lifting ? dx.squeeze(2) : dx;
}

at::Tensor fused_wgrad_cuda(const at::Tensor& x, const at::Tensor& dy_, const std::optional<at::Tensor>& relaxed_weight,
                            const std::optional<at::Tensor>& activated, std::string_view group,
                            std::string_view relax_on, int64_t kernel_size, at::IntArrayRef stride,
                            at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups) {
  const auto [dy, mask] = masked_gradient(dy_, activated);
  const IrrepLayer layer =
      wgrad_layer(x, dy, relaxed_weight, group, relax_on, kernel_size, {stride, padding, dilation}, groups);
  auto params = params_of<cuda::FusedWgradParams>(layer);

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
  const at::Tensor workspace = at::empty({cuda::fused_wgrad_workspace(params)}, x.options().dtype(at::kByte));
  params.workspace = workspace.mutable_data_ptr();
  check_launch(cuda::fused_wgrad(params, current_stream(x)), "fused_wgrad");
  return grad_weight;
}

}  // namespace gconv
