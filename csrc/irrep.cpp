// The irrep algorithm as ops: checks, allocation, memory formats, threads. The arithmetic is in cpu/irrep*.
#include "irrep.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zero.h>

#include <algorithm>
#include <cstring>

#include "cpu/irrep.h"
#include "irrep_checks.h"

namespace gconv {
namespace {

at::ScalarType sums_type(const at::Tensor& map) { return map.scalar_type() == at::kDouble ? at::kDouble : at::kFloat; }

void transform_weight(cpu::IrrepFpropPlan& plan) {
  const int64_t units = plan.transform_units(),
                fewest = units ? 1 + 8192 * units / (1 + plan.transformed_numbers()) : 1;
  at::parallel_for(0, units, fewest, [&](int64_t begin, int64_t end) { plan.transform_weight(begin, end); });
}

void run_fprop(cpu::IrrepFpropParams& params) {
  const ConvShape& s = params.shape;
  if (s.batch * s.groups == 0) return;
  const int64_t threads = at::in_parallel_region() ? 1 : at::get_num_threads();
  params.most_images = std::max<int64_t>(1, s.batch * s.groups / threads);
  const auto plan = cpu::plan_irrep_fprop(params);
  transform_weight(*plan);
  // Images are cut only where there are fewer of them than threads: every part pads its image anew.
  const int64_t stacks = plan->stacks(), parts = stacks ? (threads + stacks - 1) / stacks : 0;
  at::parallel_for(0, stacks * parts, 1, [&](int64_t begin, int64_t end) { plan->run(begin, end, parts); });
}

}  // namespace

at::Tensor irrep_fprop_cpu(const at::Tensor& x, const at::Tensor& weight,
                           const std::optional<at::Tensor>& relaxed_weight, const std::optional<at::Tensor>& bias,
                           const std::optional<at::Tensor>& transformed_weight, std::string_view group,
                           std::string_view relax_on, at::IntArrayRef stride, at::IntArrayRef padding,
                           at::IntArrayRef dilation, int64_t groups, bool relu) {
  const IrrepLayer layer =
      fprop_layer(x, weight, relaxed_weight, bias, group, relax_on, {stride, padding, dilation}, groups);
  cpu::IrrepFpropParams params;
  params.type = layer.type;
  params.shape = layer.shape;
  params.relax_input = layer.relax_input;
  params.banks = layer.banks();
  const ConvShape& s = params.shape;
  const at::Tensor relaxed_weight_c = relaxed_weight ? relaxed_weight->contiguous() : at::Tensor();
  const at::Tensor weight_c = weight.contiguous(), bias_c = bias ? bias->contiguous() : at::Tensor();
  at::Tensor y = empty_map_like(x, weight.size(relaxed_weight ? 1 : 0), s.order(), s.rows.out, s.columns.out);

  params.x = x.const_data_ptr();
  params.x_strides = map_strides(x);
  params.weight = weight_c.const_data_ptr();
  params.relaxed_weight = relaxed_weight ? relaxed_weight_c.const_data_ptr() : nullptr;
  params.bias = bias ? bias_c.const_data_ptr() : nullptr;
  params.relu = relu;
  params.y = y.mutable_data_ptr();
  params.y_strides = map_strides(y);
  const at::Tensor transformed_c = transformed_weight ? transformed_weight->contiguous() : at::Tensor();
  if (transformed_weight) {
    check_transformed_weight(*transformed_weight, layer, weight, sums_type(x));
    params.transformed_weight = transformed_c.const_data_ptr();
  }
  run_fprop(params);
  return y;
}

at::Tensor irrep_transform_weight_cpu(const at::Tensor& weight, const std::optional<at::Tensor>& relaxed_weight,
                                      std::string_view group, std::string_view relax_on, int64_t groups) {
  const IrrepLayer layer = weight_layer(weight, relaxed_weight, group, relax_on, groups);
  cpu::IrrepFpropParams params;
  params.type = layer.type;
  params.shape = layer.shape;
  params.relax_input = layer.relax_input;
  params.banks = layer.banks();
  const at::Tensor weight_c = weight.contiguous();
  params.weight = weight_c.const_data_ptr();
  const auto plan = cpu::plan_irrep_fprop(params);
  transform_weight(*plan);
  at::Tensor transformed = at::empty({plan->transformed_numbers()}, weight.options().dtype(sums_type(weight)));
  std::memcpy(transformed.mutable_data_ptr(), plan->transformed_weight(), transformed.nbytes());
  return transformed;
}

at::Tensor irrep_dgrad_cpu(const at::Tensor& dy_, const at::Tensor& weight,
                           const std::optional<at::Tensor>& relaxed_weight, const std::optional<at::Tensor>& activated,
                           std::string_view group, std::string_view relax_on, at::IntArrayRef input_size,
                           at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups) {
  const auto [dy, mask] = masked_gradient(dy_, activated);
  const IrrepLayer layer =
      dgrad_layer(dy, weight, relaxed_weight, group, relax_on, input_size, {stride, padding, dilation}, groups);
  cpu::IrrepFpropParams params;
  params.type = layer.type;
  params.shape = layer.shape;
  params.relax_input = layer.relax_input;
  params.banks = layer.banks();
  const ConvShape& s = params.shape;
  const at::Tensor weight_c = weight.contiguous();
  const at::Tensor relaxed_weight_c = relaxed_weight ? relaxed_weight->contiguous() : at::Tensor();
  at::Tensor dx = empty_map_like(dy, groups * s.out_fields, s.order(), s.rows.out, s.columns.out);
  params.x = dy.const_data_ptr();
  params.x_activated = mask;
  params.x_strides = map_strides(dy);
  params.weight = weight_c.const_data_ptr();
  params.adjoint = true;
  params.relaxed_weight = relaxed_weight ? relaxed_weight_c.const_data_ptr() : nullptr;
  if (cpu::leaves_zeros(params)) dx.zero_();
  params.y = dx.mutable_data_ptr();
  params.y_strides = map_strides(dx);
  run_fprop(params);
  return dx;
}

at::Tensor irrep_wgrad_cpu(const at::Tensor& x, const at::Tensor& dy_, const std::optional<at::Tensor>& relaxed_weight,
                           const std::optional<at::Tensor>& activated, std::string_view group,
                           std::string_view relax_on, int64_t kernel_size, at::IntArrayRef stride,
                           at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups) {
  const auto [dy, mask] = masked_gradient(dy_, activated);
  const IrrepLayer layer =
      wgrad_layer(x, dy, relaxed_weight, group, relax_on, kernel_size, {stride, padding, dilation}, groups);
  cpu::IrrepWgradParams params;
  params.type = layer.type;
  params.shape = layer.shape;
  const ConvShape& s = params.shape;
  const at::Tensor relaxed_weight_c = relaxed_weight ? relaxed_weight->contiguous() : at::Tensor();
  at::Tensor grad_weight = at::empty(weight_sizes(s, layer.relaxed_banks), x.options());

  params.x = x.const_data_ptr();
  params.x_strides = map_strides(x);
  params.dy = dy.const_data_ptr();
  params.dy_activated = mask;
  params.dy_strides = map_strides(dy);
  const int64_t bank_bytes = grad_weight.nbytes() / layer.banks(), row_bytes = s.order() * x.element_size();
  for (int64_t bank = 0; bank < layer.banks(); ++bank) {
    if (relaxed_weight) {
      const void* w = static_cast<const char*>(relaxed_weight_c.const_data_ptr()) + bank * row_bytes;
      (layer.relax_input ? params.x_scale : params.dy_scale) = w;
    }
    params.grad_weight = static_cast<char*>(grad_weight.mutable_data_ptr()) + bank * bank_bytes;
    const auto plan = cpu::plan_irrep_wgrad(params);
    at::parallel_for(0, plan->units(), 1, [&](int64_t begin, int64_t end) { plan->run(begin, end); });
    at::parallel_for(0, plan->finish_units(), 1, [&](int64_t begin, int64_t end) { plan->finish(begin, end); });
  }
  return grad_weight;
}

}  // namespace gconv
