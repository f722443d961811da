#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <optional>
#include <string_view>
#include <tuple>

namespace gconv {

at::Tensor expand_filter_cpu(const at::Tensor& weight, const std::optional<at::Tensor>& relaxed_weight,
                             std::string_view group, std::string_view relax_on);

// A gradient that output_mask does not ask for comes back as an empty tensor of shape [0].
std::tuple<at::Tensor, at::Tensor> expand_filter_backward_cpu(const at::Tensor& grad_filter, const at::Tensor& weight,
                                                              const std::optional<at::Tensor>& relaxed_weight,
                                                              std::string_view group, std::string_view relax_on,
                                                              std::array<bool, 2> output_mask);

}  // namespace gconv
