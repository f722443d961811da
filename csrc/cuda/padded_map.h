// A copy of a feature map of 16-bit numbers as the kernels for wide layers read it: [image, element, row, column, field], with
// zeros up to a multiple of 8 fields, so that every 8 are a vector. It is read and written once, in less time than a wide layer
// takes more by a kernel that reads number by number.
#pragma once

#include <cuda_runtime_api.h>

#include "../conv_shape.h"
#include "../scalar_type.h"

namespace gconv::cuda {

constexpr int64_t padded_fields(int64_t fields) { return (fields + 7) / 8 * 8; }

struct PaddedMap {
  int64_t batch, elements, rows, columns, fields;  // without the zeros

  MapStrides strides() const {
    const int64_t pixel = padded_fields(fields), row = columns * pixel, element = rows * row;
    return {elements * element, 1, element, row, pixel};
  }
  int64_t bytes() const { return 2 * batch * strides().batch; }    // a multiple of 16
  bool fits() const { return 1. * bytes() < (int64_t{1} << 34); }  // so that its chunks are 32-bit numbers
};

inline PaddedMap padded_x(const ConvShape& s) {
  return {s.batch, s.in_elements(), s.rows.in, s.columns.in, s.in_fields};
}
inline PaddedMap padded_y(const ConvShape& s) { return {s.batch, s.order(), s.rows.out, s.columns.out, s.out_fields}; }

// Copies `map`, whose numbers count where `activated`, with its strides, is above 0 or NaN, or everywhere. It has to fit.
cudaError_t pad_map(ScalarType type, const PaddedMap& padded, const void* map, const void* activated,
                    const MapStrides& strides, void* to, cudaStream_t stream);

}  // namespace gconv::cuda
