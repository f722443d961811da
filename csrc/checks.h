// What the ops check of their arguments, beyond the checks of the Python functions: an op may be called directly.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "group_tables.h"
#include "scalar_type.h"

namespace gconv {

inline ScalarType scalar_type(const at::Tensor& tensor, const char* name) {
  switch (tensor.scalar_type()) {
    case at::kDouble: return ScalarType::Float64;
    case at::kFloat: return ScalarType::Float32;
    case at::kBFloat16: return ScalarType::BFloat16;
    case at::kHalf: return ScalarType::Float16;
    default:
      TORCH_CHECK_TYPE(false, name, " must be float64, float32, bfloat16 or float16, got ", tensor.scalar_type());
  }
}

inline const PointGroup* checked_group(std::string_view name) {
  const PointGroup* group = find_group(name);
  TORCH_CHECK_VALUE(group, "group must be one of C1, C2, C4, D1, D2, D4, got '", std::string(name), "'");
  return group;
}

inline void check_like(const at::Tensor& tensor, const char* name, const at::Tensor& other, const char* other_name) {
  TORCH_CHECK_TYPE(tensor.scalar_type() == other.scalar_type(), name, " must have ", other_name, "'s dtype ",
                   other.scalar_type(), ", got ", tensor.scalar_type());
  TORCH_CHECK_VALUE(tensor.device() == other.device(), name, " must be on ", other_name, "'s device ", other.device(),
                    ", got ", tensor.device());
}

inline void check_shape(const at::Tensor& tensor, const char* name, at::IntArrayRef expected) {
  TORCH_CHECK_VALUE(tensor.sizes() == expected, name, " must have shape ", expected, ", got ", tensor.sizes());
}

inline void check_pair(at::IntArrayRef pair, const char* name, int64_t minimum) {
  TORCH_CHECK_VALUE(pair.size() == 2 && pair[0] >= minimum && pair[1] >= minimum, name,
                    " must be two numbers of at least ", minimum, ", got ", pair);
  // Products of these with sizes must stay far from the ends of int64.
  TORCH_CHECK_VALUE(pair[0] <= INT32_MAX && pair[1] <= INT32_MAX, name, " must be below 2^31, got ", pair);
}

inline bool relaxes_input(std::string_view relax_on) {
  TORCH_CHECK_VALUE(relax_on == "input" || relax_on == "output", "relax_on must be 'input' or 'output', got '",
                    std::string(relax_on), "'");
  return relax_on == "input";
}

inline void check_not_empty(const at::Tensor& weight) {
  TORCH_CHECK_VALUE(weight.numel() > 0, "weight must have at least one bank, field and tap, got shape ",
                    weight.sizes());
}

}  // namespace gconv
