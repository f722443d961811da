#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace gconv {

// gconv_ext/batch_norm.py: y of x [B, C, |P|, H, W], with relu max(y, 0), by a given mean and variance [C].
at::Tensor batch_norm_inference_cpu(const at::Tensor& x, const std::optional<at::Tensor>& weight,
                                    const std::optional<at::Tensor>& bias, const at::Tensor& mean,
                                    const at::Tensor& var, double eps, bool relu);

// y, and mean and variance [C] over all but the fields.
std::tuple<at::Tensor, at::Tensor, at::Tensor> batch_norm_fprop_cpu(const at::Tensor& x,
                                                                    const std::optional<at::Tensor>& weight,
                                                                    const std::optional<at::Tensor>& bias, double eps,
                                                                    bool relu);

// The gradients to x (of shape [0] where it is not needed), weight and bias [C]. activated is y where that had a ReLU.
std::tuple<at::Tensor, at::Tensor, at::Tensor> batch_norm_dgrad_cpu(const at::Tensor& dy, const at::Tensor& x,
                                                                    const at::Tensor& mean, const at::Tensor& var,
                                                                    const std::optional<at::Tensor>& weight,
                                                                    const std::optional<at::Tensor>& activated,
                                                                    double eps, bool need_x);

}  // namespace gconv
