#pragma once

#include <ATen/core/Tensor.h>

namespace gconv {

// Sums over windows of planes [..., H, W], and the gradient to planes of input_size; gconv_ext/window_sum.py.
at::Tensor window_sum_fprop_cpu(const at::Tensor& x, at::ArrayRef<double> taps, int64_t stride, int64_t padding);
at::Tensor window_sum_dgrad_cpu(const at::Tensor& dy, at::ArrayRef<double> taps, at::IntArrayRef input_size,
                                int64_t stride, int64_t padding);

}  // namespace gconv
