// The filter expansion as an op: checks, allocation, threads. The arithmetic is in cpu/expand_filter.
#include "expand_filter.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <c10/util/SmallVector.h>

#include "checks.h"
#include "cpu/expand_filter.h"

namespace gconv {
namespace {

// Below this many numbers a thread costs more than it saves.
constexpr int64_t kNumbersPerThread = 32768;

RelaxOn parse_relax_on(std::string_view relax_on) { return relaxes_input(relax_on) ? RelaxOn::Input : RelaxOn::Output; }

FilterShape filter_shape(const at::Tensor& weight, const std::optional<at::Tensor>& relaxed_weight,
                         std::string_view group_name, RelaxOn relax_on) {
  FilterShape shape;
  shape.group = checked_group(group_name);
  const int64_t leading = relaxed_weight ? 1 : 0;  // the axis of banks
  const int64_t dim = weight.dim();
  TORCH_CHECK_VALUE(dim == leading + 4 || dim == leading + 5, "weight must have ", leading + 4, " (lifting) or ",
                    leading + 5, " (group convolution) dimensions", leading ? " with a relaxed_weight" : "",
                    ", got shape ", weight.sizes());
  TORCH_CHECK_VALUE(weight.size(-1) == weight.size(-2) && weight.size(-1) > 0 && weight.size(-1) <= 1024,
                    "weight must have k x k taps, 1 <= k <= 1024, got shape ", weight.sizes());
  check_not_empty(weight);
  shape.lifting = dim == leading + 4;
  shape.size = static_cast<int>(weight.size(-1));
  shape.banks = leading ? weight.size(0) : 1;
  shape.out_fields = weight.size(leading);
  shape.in_fields = weight.size(leading + 1);
  TORCH_CHECK_VALUE(shape.lifting || weight.size(leading + 2) == shape.elements(), "weight must have ",
                    shape.elements(), " relative elements (dimension ", leading + 2, ") for group ",
                    std::string(group_name), ", got shape ", weight.sizes());
  if (relaxed_weight) {
    TORCH_CHECK_VALUE(!(shape.lifting && relax_on == RelaxOn::Input),
                      "relax_on='input' needs a group axis on the input; a lifting convolution has none");
    check_shape(*relaxed_weight, "relaxed_weight", {shape.banks, shape.elements()});
    check_like(*relaxed_weight, "relaxed_weight", weight, "weight");
  }
  return shape;
}

c10::SmallVector<int64_t, 4> filter_sizes(const FilterShape& shape) {
  return {shape.out_fields * shape.elements(), shape.in_fields * shape.relative_elements(), shape.size, shape.size};
}

}  // namespace

at::Tensor expand_filter_cpu(const at::Tensor& weight, const std::optional<at::Tensor>& relaxed_weight,
                             std::string_view group, std::string_view relax_on) {
  cpu::ExpandFilterParams params;
  params.type = scalar_type(weight, "weight");
  params.relax_on = parse_relax_on(relax_on);
  params.shape = filter_shape(weight, relaxed_weight, group, params.relax_on);

  const at::Tensor weight_c = weight.contiguous();
  const at::Tensor relaxed_weight_c = relaxed_weight ? relaxed_weight->contiguous() : at::Tensor();
  const std::vector<int32_t> moved = moved_positions(params.shape);
  at::Tensor filter = at::empty(filter_sizes(params.shape), weight.options());

  params.moved = moved.data();
  params.weight = weight_c.const_data_ptr();
  params.relaxed_weight = relaxed_weight ? relaxed_weight_c.const_data_ptr() : nullptr;
  params.filter = filter.mutable_data_ptr();
  const int64_t work = params.shape.elements() * params.shape.block() * params.shape.banks;
  at::parallel_for(0, params.shape.pairs(), std::max<int64_t>(1, kNumbersPerThread / work),
                   [&](int64_t begin, int64_t end) { cpu::expand_filter(params, begin, end); });
  return filter;
}

std::tuple<at::Tensor, at::Tensor> expand_filter_backward_cpu(const at::Tensor& grad_filter, const at::Tensor& weight,
                                                              const std::optional<at::Tensor>& relaxed_weight,
                                                              std::string_view group, std::string_view relax_on,
                                                              std::array<bool, 2> output_mask) {
  cpu::ExpandFilterBackwardParams params;
  params.type = scalar_type(weight, "weight");
  params.relax_on = parse_relax_on(relax_on);
  params.shape = filter_shape(weight, relaxed_weight, group, params.relax_on);
  check_shape(grad_filter, "grad_filter", filter_sizes(params.shape));
  check_like(grad_filter, "grad_filter", weight, "weight");
  TORCH_CHECK_VALUE(relaxed_weight || !output_mask[1], "output_mask[1] asks for the gradient of relaxed_weight, got None");

  const at::Tensor grad_filter_c = grad_filter.contiguous(), weight_c = weight.contiguous();
  const at::Tensor relaxed_weight_c = relaxed_weight ? relaxed_weight->contiguous() : at::Tensor();
  const std::vector<int32_t> moved = moved_positions(params.shape);
  at::Tensor grad_weight = at::empty(output_mask[0] ? weight.sizes() : at::IntArrayRef{0}, weight.options());
  const int64_t out_fields = params.shape.out_fields, relaxed_numbers = params.shape.banks * params.shape.elements();
  std::vector<double> grad_relaxed_shares(output_mask[1] ? out_fields * relaxed_numbers : 0);

  params.moved = moved.data();
  params.weight = weight_c.const_data_ptr();
  params.relaxed_weight = relaxed_weight ? relaxed_weight_c.const_data_ptr() : nullptr;
  params.grad_filter = grad_filter_c.const_data_ptr();
  params.grad_weight = output_mask[0] ? grad_weight.mutable_data_ptr() : nullptr;
  params.grad_relaxed_weight = output_mask[1] ? grad_relaxed_shares.data() : nullptr;
  const int64_t work =
      params.shape.in_fields * params.shape.elements() * params.shape.block() * params.shape.banks;
  at::parallel_for(0, out_fields, std::max<int64_t>(1, kNumbersPerThread / std::max<int64_t>(1, work)),
                   [&](int64_t begin, int64_t end) { cpu::expand_filter_backward(params, begin, end); });

  if (!output_mask[1]) return {grad_weight, at::empty({0}, weight.options())};
  at::Tensor grad_relaxed_weight =
      at::empty({params.shape.banks, params.shape.elements()}, weight.options().dtype(at::kDouble));
  double* total = grad_relaxed_weight.mutable_data_ptr<double>();
  std::fill(total, total + relaxed_numbers, 0.0);
  for (int64_t o = 0; o < out_fields; ++o)
    for (int64_t i = 0; i < relaxed_numbers; ++i) total[i] += grad_relaxed_shares[o * relaxed_numbers + i];
  return {grad_weight, grad_relaxed_weight.to(weight.scalar_type())};
}

}  // namespace gconv
