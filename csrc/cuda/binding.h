// The ops on CUDA tensors; csrc/expand_filter.h says what they do.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <optional>
#include <string_view>
#include <tuple>

namespace gconv {

at::Tensor expand_filter_cuda(const at::Tensor& weight, const std::optional<at::Tensor>& relaxed_weight,
                              std::string_view group, std::string_view relax_on);

std::tuple<at::Tensor, at::Tensor> expand_filter_backward_cuda(const at::Tensor& grad_filter, const at::Tensor& weight,
                                                               const std::optional<at::Tensor>& relaxed_weight,
                                                               std::string_view group, std::string_view relax_on,
                                                               std::array<bool, 2> output_mask);

}  // namespace gconv
