// The filter expansion as an op on the CPU: checks, allocation, threads. The arithmetic is in cpu/expand_filter.
#include "expand_filter.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include "cpu/expand_filter.h"
#include "filter_checks.h"

namespace gconv {
namespace {

// Below this many numbers a thread costs more than it saves.
constexpr int64_t kNumbersPerThread = 32768;

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
  check_backward(grad_filter, weight, relaxed_weight, params.shape, output_mask);

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
  const int64_t work = params.shape.in_fields * params.shape.elements() * params.shape.block() * params.shape.banks;
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
