#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>

namespace gconv {

// Of the numbers of x, on the CPU, in the order of its axes, bit by bit; gconv_ext/kept.py.
std::array<uint64_t, 2> fingerprint(const at::Tensor& x);

}  // namespace gconv
