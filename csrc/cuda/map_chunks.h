// Reading feature maps as the pixels of y read them, 16 bytes of neighbouring fields at a time.
#pragma once

#include <cstring>

#include "../conv_shape.h"
#include "divisor.h"
#include "scalar_types.h"

namespace gconv::cuda {

template <typename T>
constexpr int kChunk = 16 / sizeof(T);  // numbers in a uint4

// A feature map as the pixels of y read it; fields are those of one block.
template <typename T>
struct Map {
  Map(const void* data, const void* activated, const MapStrides& strides, int64_t fields, const Axis& rows,
      const Axis& columns)
      : data(static_cast<const T*>(data)), activated(static_cast<const T*>(activated)), strides(strides),
        fields(static_cast<int>(fields)), rows(static_cast<int>(rows.in)), columns(static_cast<int>(columns.in)),
        row_stride(static_cast<int>(rows.stride)), column_stride(static_cast<int>(columns.stride)),
        row_padding(static_cast<int>(rows.padding)), column_padding(static_cast<int>(columns.padding)),
        in_rows(strides.field > strides.column) {
    const auto fits = [&](int width) {
      const int64_t bytes = width * sizeof(T);
      for (int64_t stride : {strides.batch, strides.element, strides.row, strides.column, fields})
        if (stride % width) return false;
      return strides.field == 1 && reinterpret_cast<uintptr_t>(data) % bytes == 0 &&
             reinterpret_cast<uintptr_t>(activated) % bytes == 0;
    };
    width = fits(kChunk<T>) ? kChunk<T> : sizeof(T) == 2 && fits(2) ? 2 : 1;
  }

  const T *data, *activated;  // the numbers count where `activated` is above 0 or NaN; nullptr: everywhere
  MapStrides strides;
  int fields, rows, columns, row_stride, column_stride, row_padding, column_padding;
  int width = 1;  // neighbouring fields that one load may take
  bool in_rows;   // neighbouring pixels lie closer together than neighbouring fields

  // Fields beyond the last are zeros.
  __device__ uint4 read(const T* numbers, int64_t offset, int field) const {
    uint4 chunk{};
    const T* from = numbers + offset + field * strides.field;
    if (width == kChunk<T>) {
      if (field < fields) chunk = *reinterpret_cast<const uint4*>(from);
    } else if (sizeof(T) == 2 && width == 2) {
      uint32_t pairs[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) pairs[i] = field + 2 * i < fields ? reinterpret_cast<const uint32_t*>(from)[i] : 0;
      chunk = {pairs[0], pairs[1], pairs[2], pairs[3]};
    } else {
      T all[kChunk<T>];
#pragma unroll
      for (int i = 0; i < kChunk<T>; ++i, from += strides.field) all[i] = field + i < fields ? *from : T();
      std::memcpy(&chunk, all, sizeof chunk);
    }
    return chunk;
  }
};

// Zeros where the mask is not above 0; NaN is.
template <typename T>
__device__ uint4 masked(uint4 chunk, uint4 mask) {
  T all[kChunk<T>], masks[kChunk<T>];
  std::memcpy(all, &chunk, sizeof chunk);
  std::memcpy(masks, &mask, sizeof mask);
#pragma unroll
  for (int i = 0; i < kChunk<T>; ++i)
    if (widen(masks[i]) <= 0) all[i] = T();
  std::memcpy(&chunk, all, sizeof chunk);
  return chunk;
}

struct Pixel {  // of y
  int image, row, column;
};

// From the pixel of an element's plane that tap 0 would read to the one that is read; the offset holds the plane's.
struct Shift {
  int64_t offset;
  int row, column;
};

// A chunk of fields of one element, zeros outside of the map.
template <bool Maskable, typename T>
__device__ __forceinline__ uint4 read_chunk(const Map<T>& map, Shift shift, bool inside, Pixel pixel, int field) {
  const int first_row = pixel.row * map.row_stride - map.row_padding;
  const int first_column = pixel.column * map.column_stride - map.column_padding;
  const MapStrides& strides = map.strides;
  const bool valid = inside && static_cast<unsigned>(first_row + shift.row) < static_cast<unsigned>(map.rows) &&
                     static_cast<unsigned>(first_column + shift.column) < static_cast<unsigned>(map.columns);
  const int64_t offset =
      pixel.image * strides.batch + first_row * strides.row + first_column * strides.column + shift.offset;
  const uint4 chunk = valid ? map.read(map.data, offset, field) : uint4{};
  return Maskable && map.activated && valid ? masked<T>(chunk, map.read(map.activated, offset, field)) : chunk;
}

}  // namespace gconv::cuda
