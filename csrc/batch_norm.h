#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace gconv {

// y of x [B, C, |P|, H, W], and mean and variance [C] over all but the fields; gconv_ext/batch_norm.py.
std::tuple<at::Tensor, at::Tensor, at::Tensor> batch_norm_fprop_cpu(const at::Tensor& x,
                                                                    const std::optional<at::Tensor>& weight,
                                                                    const std::optional<at::Tensor>& bias, double eps);

// The gradients to x (of shape [0] where it is not needed), weight and bias [C].
std::tuple<at::Tensor, at::Tensor, at::Tensor> batch_norm_dgrad_cpu(const at::Tensor& dy, const at::Tensor& x,
                                                                    const at::Tensor& mean, const at::Tensor& var,
                                                                    const std::optional<at::Tensor>& weight, double eps,
                                                                    bool need_x);

}  // namespace gconv
