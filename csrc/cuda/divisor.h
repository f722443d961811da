// Division by a number that a kernel is launched with.
#pragma once

#include <cstdint>

#include "device.h"

namespace gconv::cuda {

// n / divisor for 0 <= n < 2^31, of a divisor up to 2^30, without a division.
struct Divisor {
  explicit Divisor(int64_t divisor) : value(static_cast<int>(divisor)) {
    while (int64_t{1} << (shift - 31) < divisor) ++shift;
    factor = static_cast<uint32_t>(((uint64_t{1} << shift) + divisor - 1) / divisor);
  }
  __device__ int quotient(int n) const {
    return static_cast<int>(uint64_t{factor} * static_cast<uint32_t>(n) >> shift);
  }

  int value, shift = 31;
  uint32_t factor;
};

}  // namespace gconv::cuda
