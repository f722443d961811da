// What launchers find out about how feature maps lie in memory.
#pragma once

#include <cstdint>
#include <cstdlib>

#include "../conv_shape.h"

namespace gconv::cuda {

// Whether offsets within an image of x are 32-bit numbers.
inline bool offsets_fit(const ConvShape& s, const MapStrides& strides) {
  const auto reach = [&](const Axis& axis) { return std::abs(axis.padding) + axis.dilation * s.size; };
  return 1. * s.order() * strides.element + 1. * reach(s.rows) * strides.row + 1. * reach(s.columns) * strides.column +
             1. * s.groups * s.in_fields * strides.field <=
         INT32_MAX;
}

// The largest power of two up to `most` that divides it.
inline int64_t widest(int64_t numbers, int64_t most) {
  while (numbers % most) most /= 2;
  return most;
}

// How many neighbouring fields can be read or written at once.
template <typename T>
int map_width(const void* map, const MapStrides& strides, int64_t fields, int64_t most) {
  if (strides.field != 1) return 1;
  const int64_t address = reinterpret_cast<uintptr_t>(map) / sizeof(T);
  return static_cast<int>(
      widest(address | fields | strides.batch | strides.element | strides.row | strides.column, most));
}

}  // namespace gconv::cuda
