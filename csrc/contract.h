#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <tuple>

namespace gconv {

// y [B, O, I, H', W'] of x [B, C, M, H, W], hidden [H', W', I, M, k², D] and weight [O, C, D];
// gconv_ext/contraction.py.
at::Tensor contract_fprop_cpu(const at::Tensor& x, const at::Tensor& hidden, const at::Tensor& weight, int64_t stride,
                              int64_t padding);

// The gradients to x, hidden and weight, each of shape [0] where output_mask does not ask for it.
std::tuple<at::Tensor, at::Tensor, at::Tensor> contract_backward_cpu(const at::Tensor& dy, const at::Tensor& x,
                                                                     const at::Tensor& hidden, const at::Tensor& weight,
                                                                     int64_t stride, int64_t padding,
                                                                     std::array<bool, 3> output_mask);

}  // namespace gconv
