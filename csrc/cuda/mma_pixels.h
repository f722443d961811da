// The pixels of a warp as rows of mma's operands: MT · 16 of them are read into the registers of A, and written from
// those of the sums. p is the Problem of fused_filter.h or of irrep_fprop_steps.h.
#pragma once

#include <cstring>
#include <type_traits>

#include "conv_place.h"
#include "mma_operand.h"

namespace gconv::cuda {
namespace {

template <typename T, int MT>
struct MmaPixels {
  static constexpr int kNeighbours = Operand<T>::kNeighbours;
  using X = uint32_t[MT][4];

  const T* from[MT][2];  // of the pixels whose rows of A this thread reads
  int row_at[MT][2], column_at[MT][2];

  template <typename Problem>
  __device__ MmaPixels(const Problem& p, const Place& place) {
#pragma unroll
    for (int m = 0; m < MT; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const Pixel pixel = place.pixel(index(m, half));
        const int row = pixel.row * p.rows.stride;
        row_at[m][half] = pixel.image < p.batch ? row : kNowhere;
        column_at[m][half] = pixel.column * p.columns.stride;
        from[m][half] = p.x + pixel.image * p.x_strides.batch + row * p.x_strides.row +
                        column_at[m][half] * p.x_strides.column +
                        (int64_t{place.block} * p.in_fields + threadIdx.x % 4 * kNeighbours) * p.x_strides.field;
      }
  }

  __device__ static int index(int m, int half) {
    return (threadIdx.x / 32 * MT + m) * 16 + half * 8 + threadIdx.x % 32 / 4;
  }

  // What each pixel has at that offset from its own, (row, column) away, of the fields from `field` on; zeros outside.
  template <typename Problem>
  __device__ __forceinline__ void load(const Problem& p, int64_t offset, int row, int column, int field, X& x) const {
    if (p.x_width == kNeighbours)
      load<kNeighbours>(p, offset, row, column, field, x);
    else if (kNeighbours > 2 && p.x_width == 2)
      load<2>(p, offset, row, column, field, x);
    else
      load<1>(p, offset, row, column, field, x);
  }

  // The same, Width neighbours at once.
  template <int Width, typename Problem>
  __device__ __forceinline__ void load(const Problem& p, int64_t offset, int row, int column, int field, X& x) const {
    const int fields = p.in_fields - field - static_cast<int>(threadIdx.x % 4) * kNeighbours;
#pragma unroll
    for (int m = 0; m < MT; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const bool inside = static_cast<unsigned>(row_at[m][half] + row) < static_cast<unsigned>(p.rows.in) &&
                            static_cast<unsigned>(column_at[m][half] + column) < static_cast<unsigned>(p.columns.in);
        load_neighbours<Width>(from[m][half], offset, p.x_strides.field, inside ? fields : 0, x[m][half],
                               x[m][half + 2]);
      }
  }

  // Zeros where the map that goes with x is not above 0; NaN is, as in PyTorch.
  __device__ __forceinline__ static void mask(const X& activated, X& x) {
#pragma unroll
    for (int i = 0; i < 4 * MT; ++i)
      x[i / 4][i % 4] = for_each_number<T>([](float value, float by) { return by <= 0 ? 0.f : value; }, x[i / 4][i % 4],
                                           activated[i / 4][i % 4]);
  }
};

// y + bias, after ReLU if asked; y is left so. A tile has fields in units of 8. InPairs: two fields can always be written
// at once.
template <typename T, int Elements, int MT, int Units, bool InPairs = false, typename Problem>
__device__ __forceinline__ void store_tile(const Problem& p, const Place& place, float (&y)[Elements][MT][Units][4]) {
  const int lane_field = place.first_out + static_cast<int>(threadIdx.x % 4) * 2;
  const int64_t first_channel = int64_t{place.block} * p.out_fields;
  if (p.bias) {
#pragma unroll
    for (int i = 0; i < 2 * Units; ++i) {
      const int field = lane_field + i / 2 * 8 + i % 2;
      const float bias = field < p.out_fields ? widen(p.bias[first_channel + field]) : 0.f;
#pragma unroll
      for (int j = 0; j < 2 * Elements * MT; ++j) y[j / 2 / MT][j / 2 % MT][i / 2][j % 2 * 2 + i % 2] += bias;
    }
  }
  if (p.relu) {
#pragma unroll
    for (int i = 0; i < 4 * Elements * MT * Units; ++i) {
      float& value = y[i / 4 / Units / MT][i / 4 / Units % MT][i / 4 % Units][i % 4];
      if (value < 0) value = 0;  // NaN stays
    }
  }
#pragma unroll
  for (int i = 0; i < 2 * MT; ++i) {
    const int m = i / 2, half = i % 2;
    const Pixel pixel = place.pixel(MmaPixels<T, MT>::index(m, half));
    if (pixel.image >= p.batch) return;
    const int64_t row = int64_t{pixel.row} * p.rows.spread + place.row_phase;
    const int64_t column = int64_t{pixel.column} * p.columns.spread + place.column_phase;
    T* const to = p.y + pixel.image * p.y_strides.batch + row * p.y_strides.row + column * p.y_strides.column +
                  (first_channel + lane_field) * p.y_strides.field;
#pragma unroll
    for (int n = 0; n < Units; ++n) {
      const int fields = p.out_fields - lane_field - n * 8;
      if (fields <= 0) break;
      T* at = to + n * 8 * p.y_strides.field;
#pragma unroll
      for (int u = 0; u < Elements; ++u, at += p.y_strides.element) {
        const auto pair = narrow_pair<T>(y[u][m][n][2 * half], y[u][m][n][2 * half + 1]);
        if (InPairs || p.y_width == 2) {
          *reinterpret_cast<std::remove_const_t<decltype(pair)>*>(at) = pair;
        } else {
          T numbers[2];
          std::memcpy(numbers, &pair, sizeof pair);
          at[0] = numbers[0];
          if (fields > 1) at[p.y_strides.field] = numbers[1];
        }
      }
    }
  }
}

}  // namespace
}  // namespace gconv::cuda
