// The ops on CUDA tensors; csrc/expand_filter.h and csrc/irrep.h say what they do.
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

at::Tensor irrep_fprop_cuda(const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& relaxed_weight, const std::optional<at::Tensor>& bias,
                            const std::optional<at::Tensor>& transformed_weight, std::string_view group,
                            std::string_view relax_on, at::IntArrayRef stride, at::IntArrayRef padding,
                            at::IntArrayRef dilation, int64_t groups, bool relu);

at::Tensor irrep_transform_weight_cuda(const at::Tensor& weight, const std::optional<at::Tensor>& relaxed_weight,
                                       std::string_view group, std::string_view relax_on, int64_t groups);

at::Tensor irrep_dgrad_cuda(const at::Tensor& dy, const at::Tensor& weight,
                            const std::optional<at::Tensor>& relaxed_weight, const std::optional<at::Tensor>& activated,
                            std::string_view group, std::string_view relax_on, at::IntArrayRef input_size,
                            at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups);

at::Tensor irrep_wgrad_cuda(const at::Tensor& x, const at::Tensor& dy, const std::optional<at::Tensor>& relaxed_weight,
                            const std::optional<at::Tensor>& activated, std::string_view group,
                            std::string_view relax_on, int64_t kernel_size, at::IntArrayRef stride,
                            at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups);

// The fused dense form: as the irrep ops, without a transformed weight, and with the gradient to an image.

at::Tensor fused_fprop_cuda(const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& relaxed_weight, const std::optional<at::Tensor>& bias,
                            const std::optional<at::Tensor>& transformed_weight, std::string_view group,
                            std::string_view relax_on, at::IntArrayRef stride, at::IntArrayRef padding,
                            at::IntArrayRef dilation, int64_t groups, bool relu);

at::Tensor fused_dgrad_cuda(const at::Tensor& dy, const at::Tensor& weight,
                            const std::optional<at::Tensor>& relaxed_weight, const std::optional<at::Tensor>& activated,
                            std::string_view group, std::string_view relax_on, at::IntArrayRef input_size,
                            at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups);

at::Tensor fused_wgrad_cuda(const at::Tensor& x, const at::Tensor& dy, const std::optional<at::Tensor>& relaxed_weight,
                            const std::optional<at::Tensor>& activated, std::string_view group,
                            std::string_view relax_on, int64_t kernel_size, at::IntArrayRef stride,
                            at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups);

}  // namespace gconv
