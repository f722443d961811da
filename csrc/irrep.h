#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string_view>

namespace gconv {

at::Tensor irrep_fprop_cpu(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                           std::string_view group, at::IntArrayRef stride, at::IntArrayRef padding,
                           at::IntArrayRef dilation, int64_t groups, bool relu);

// The gradient to an input of input_size (height, width). Group convolution only: the gradient to an image has no group
// axis, so there is nothing to save on the way to it.
at::Tensor irrep_dgrad_cpu(const at::Tensor& dy, const at::Tensor& weight, std::string_view group,
                           at::IntArrayRef input_size, at::IntArrayRef stride, at::IntArrayRef padding,
                           at::IntArrayRef dilation, int64_t groups);

at::Tensor irrep_wgrad_cpu(const at::Tensor& x, const at::Tensor& dy, std::string_view group, int64_t kernel_size,
                           at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups);

}  // namespace gconv
