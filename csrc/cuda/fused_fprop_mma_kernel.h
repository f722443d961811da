// The Tile of fused_fprop_kernel.h on the tensor cores: a warp makes MT · 16 pixels × Units · 8 out fields of all
// elements. x comes straight into the registers of mma's A operand. Included by one file for each type, to be compiled
// at the same time.
#pragma once

#include "fused_fprop_kernel.h"
#include "fused_fprop_mma.h"
#include "fused_tiles.h"
#include "mma_pixels.h"

namespace gconv::cuda {
namespace {

template <typename T, int Elements, int MT, int Units>
struct MmaTile {
  using Number = T;
  struct X {
    uint32_t a[MT][4];
  };
  using Sums = float[Elements][MT][Units][4];
  static constexpr int kFields = Operand<T>::kFields, kOutFields = 8 * Units;
  static constexpr int kPixels = kWarps * MT * 16, kMatrix = kFields * kOutFields, kColumns = Elements * Units;

  MmaPixels<T, MT> pixels;

  __device__ MmaTile(const Problem<T>& p, const Place& place) : pixels(p, place) {}

  // Rows are those of mma's inner dimension; their units are exchanged, so that what a warp reads at once, 8 rows of
  // 16-bit numbers or 4 of 32 bits, lies in different banks.
  __device__ static int unit_at(int row, int unit) { return unit ^ row * Units / (sizeof(T) == 4 ? 4 : 8) % Units; }
  __device__ static int matrix_at(int field, int out) {
    const int row = Operand<T>::place(field);
    return row * kOutFields + unit_at(row, out / 8) * 8 + out % 8;
  }
  __device__ static T number(float sum) {
    if constexpr (sizeof(T) == 4)
      return __uint_as_float(tf32(sum));
    else
      return narrow<T>(sum);
  }

  __device__ __forceinline__ void load(const Problem<T>& p, const Read& read, int field, int64_t field_offset,
                                       X& x) const {
    const int64_t offset = read.offset + field_offset;
    pixels.load(p, offset, read.row, read.column, field, x.a);
    if (!p.masked) return;
    X activated;
    pixels.load(p, offset + p.mask_offset, read.row, read.column, field, activated.a);
    pixels.mask(activated.a, x.a);
  }

  __device__ __forceinline__ static void multiply(const X& x, const T* matrices, const uint8_t (&slots)[kMaxOrder],
                                                  Sums& sums) {
    uint32_t a[MT][4];
#pragma unroll
    for (int i = 0; i < 4 * MT; ++i)
      a[i / 4][i % 4] = sizeof(T) == 4 ? tf32(__uint_as_float(x.a[i / 4][i % 4])) : x.a[i / 4][i % 4];
    constexpr int kAtOnce = kColumns == 1 ? 1 : 2;
#pragma unroll
    for (int column = 0; column < kColumns; column += kAtOnce) {
      uint32_t b[kAtOnce][2];
      read(matrices, slots, column, b);
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i)
#pragma unroll
        for (int m = 0; m < MT; ++m)
          Operand<T>::multiply(sums[(column + i) / Units][m][(column + i) % Units], a[m], b[i]);
    }
  }

  __device__ __forceinline__ static void store(const Problem<T>& p, const Place& place, Sums& sums) {
    store_tile<T, Elements, MT, Units>(p, place, sums);
  }

 private:
  // Columns of 8, as the registers of B.
  template <int Count>
  __device__ __forceinline__ static void read(const T* matrices, const uint8_t (&slots)[kMaxOrder], int column,
                                              uint32_t (&b)[Count][2]) {
    const int lane = threadIdx.x % 32;
    if constexpr (sizeof(T) == 4) {
#pragma unroll
      for (int i = 0; i < 2 * Count; ++i) {
        const int row = i % 2 * 4 + lane % 4, at = column + i / 2;
        const T* const matrix = matrices + slots[at / Units] * kMatrix;
        b[i / 2][i % 2] = __float_as_uint(matrix[row * kOutFields + unit_at(row, at % Units) * 8 + lane / 4]);
      }
    } else if constexpr (Count == 1) {
      ldmatrix_x2_trans(b[0], matrices + slots[0] * kMatrix + lane % 16 * kOutFields);
    } else {
      const int row = lane % 16, at = column + lane / 16;
      const int slot = Units > 1 || lane < 16 ? slots[column / Units] : slots[column / Units + 1];
      uint32_t both[4];
      ldmatrix_x4_trans(both, matrices + slot * kMatrix + row * kOutFields + unit_at(row, at % Units) * 8);
#pragma unroll
      for (int i = 0; i < 4; ++i) b[i / 2][i % 2] = both[i];
    }
  }
};

template <typename T, int Elements, int MT, int Units>
cudaError_t launch(const Problem<T>& p, cudaStream_t stream) {
  using Tile = MmaTile<T, Elements, MT, Units>;
  if constexpr (Elements > 1)
    if (p.forms > 1) return launch_fused_fprop<Tile, Elements>(p, stream);
  return launch_fused_fprop<Tile, 1>(p, stream);
}

}  // namespace

template <typename T>
cudaError_t fused_fprop_mma(const FusedFpropParams& params, cudaStream_t stream) {
  if (!coordinates_fit(params.shape)) return cudaErrorNotSupported;
  Problem<T> p(params);
  constexpr int most = Operand<T>::kNeighbours;
  p.x_width = map_width<T>(params.x, params.x_strides, p.in_fields, most);
  if (params.x_activated)
    p.x_width = std::min(p.x_width, map_width<T>(params.x_activated, params.x_strides, p.in_fields, most));
  p.y_width = map_width<T>(params.y, params.y_strides, p.out_fields, 2);
  return with_mma_tile(
      params, [&](auto elements, auto rows, auto units) { return launch<T, elements, rows, units>(p, stream); });
}

}  // namespace gconv::cuda
