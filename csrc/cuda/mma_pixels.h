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

// y + bias, after ReLU if asked. A tile has fields in units of 8. InPairs: two fields can always be written at once.
template <typename T, int Elements, int MT, int Units, bool InPairs = false, typename Problem>
__device__ __forceinline__ void store_tile(const Problem& p, const Place& place,
                                           const float (&y)[Elements][MT][Units][4]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < 2 * MT; ++i) {
    const int m = i / 2, half = i % 2;
    const Pixel pixel = place.pixel(MmaPixels<T, MT>::index(m, half));
    if (pixel.image >= p.batch) return;
    const int64_t row = int64_t{pixel.row} * p.rows.spread + place.row_phase;
    const int64_t column = int64_t{pixel.column} * p.columns.spread + place.column_phase;
    const int64_t to = pixel.image * p.y_strides.batch + row * p.y_strides.row + column * p.y_strides.column;
#pragma unroll
    for (int n = 0; n < Units; ++n) {
      const int field = place.first_out + n * 8 + lane % 4 * 2, fields = p.out_fields - field;
      if (fields <= 0) break;
      const int64_t channel = int64_t{place.block} * p.out_fields + field;
      float bias[2];
#pragma unroll
      for (int j = 0; j < 2; ++j) bias[j] = p.bias && j < fields ? widen(p.bias[channel + j]) : 0.f;
#pragma unroll
      for (int u = 0; u < Elements; ++u) {
        T pair[2];
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          const float value = y[u][m][n][2 * half + j] + bias[j];
          pair[j] = narrow<T>(p.relu && value < 0 ? 0.f : value);  // NaN stays
        }
        T* at = p.y + to + u * p.y_strides.element + channel * p.y_strides.field;
        if (InPairs || p.y_width == 2) {
          std::conditional_t<sizeof(T) == 4, uint2, uint32_t> both;
          std::memcpy(&both, pair, sizeof both);
          *reinterpret_cast<decltype(both)*>(at) = both;
        } else {
          at[0] = pair[0];
          if (fields > 1) at[p.y_strides.field] = pair[1];
        }
      }
    }
  }
}

}  // namespace
}  // namespace gconv::cuda
