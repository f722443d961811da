#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string_view>

namespace gconv {

// A weight [L, C_out, C_in, (|P|,) k, k] comes with relaxed_weight [L, |P|] and relax_on; a strict one without either axis L.
at::Tensor irrep_fprop_cpu(const at::Tensor& x, const at::Tensor& weight,
                           const std::optional<at::Tensor>& relaxed_weight, const std::optional<at::Tensor>& bias,
                           const std::optional<at::Tensor>& transformed_weight, std::string_view group,
                           std::string_view relax_on, at::IntArrayRef stride, at::IntArrayRef padding,
                           at::IntArrayRef dilation, int64_t groups, bool relu);

// What irrep_fprop makes of the weight before it convolves, to be handed to it in later calls. Its order and type are the
// device's own.
at::Tensor irrep_transform_weight_cpu(const at::Tensor& weight, const std::optional<at::Tensor>& relaxed_weight,
                                      std::string_view group, std::string_view relax_on, int64_t groups);

// dy counts where `activated`, the convolution's result after ReLU, is above 0; everywhere without it.

// The gradient to an input of input_size (height, width). Group convolution only: the gradient to an image has no group
// axis, so there is nothing to save on the way to it.
at::Tensor irrep_dgrad_cpu(const at::Tensor& dy, const at::Tensor& weight,
                           const std::optional<at::Tensor>& relaxed_weight, const std::optional<at::Tensor>& activated,
                           std::string_view group, std::string_view relax_on, at::IntArrayRef input_size,
                           at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups);

at::Tensor irrep_wgrad_cpu(const at::Tensor& x, const at::Tensor& dy, const std::optional<at::Tensor>& relaxed_weight,
                           const std::optional<at::Tensor>& activated, std::string_view group,
                           std::string_view relax_on, int64_t kernel_size, at::IntArrayRef stride,
                           at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups);

}  // namespace gconv
