#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <tuple>

namespace gconv {

// Of the numbers of x, in the order of its axes, bit by bit; gconv_ext/kept.py.
std::tuple<int64_t, int64_t> fingerprint_cpu(const at::Tensor& x);

}  // namespace gconv
