// What expand_filter and its backward check of their arguments and make of them, on every device.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/SmallVector.h>

#include <array>
#include <optional>
#include <string>
#include <string_view>

#include "checks.h"
#include "filter_shape.h"

namespace gconv {

inline RelaxOn parse_relax_on(std::string_view relax_on) {
  return relaxes_input(relax_on) ? RelaxOn::Input : RelaxOn::Output;
}

inline FilterShape filter_shape(const at::Tensor& weight, const std::optional<at::Tensor>& relaxed_weight,
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

inline c10::SmallVector<int64_t, 4> filter_sizes(const FilterShape& shape) {
  return {shape.out_fields * shape.elements(), shape.in_fields * shape.relative_elements(), shape.size, shape.size};
}

inline void check_backward(const at::Tensor& grad_filter, const at::Tensor& weight,
                           const std::optional<at::Tensor>& relaxed_weight, const FilterShape& shape,
                           std::array<bool, 2> output_mask) {
  check_shape(grad_filter, "grad_filter", filter_sizes(shape));
  check_like(grad_filter, "grad_filter", weight, "weight");
  TORCH_CHECK_VALUE(relaxed_weight || !output_mask[1],
                    "output_mask[1] asks for the gradient of relaxed_weight, got None");
}

}  // namespace gconv
