// Where a block of threads stands in a convolution, read as an fprop: ../conv_shape.h on the device.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "../conv_shape.h"
#include "device.h"
#include "divisor.h"
#include "map_layout.h"

namespace gconv::cuda {
namespace {

constexpr int kNowhere = -(1 << 30);  // a pixel left of every map

// Whether coordinates fit into the 32 bits that kernels have for them.
inline bool coordinates_fit(const ConvShape& s) {
  for (const Axis& axis : {s.rows, s.columns})
    if (std::max({axis.in, axis.out * axis.stride, std::abs(axis.padding), axis.padding + axis.dilation * s.size,
                  axis.spread}) > -kNowhere / 2)
      return false;
  return true;
}

// Axis for the device.
struct Line {
  explicit Line(const Axis& axis)
      : in(static_cast<int>(axis.in)), out(static_cast<int>(axis.out)), stride(static_cast<int>(axis.stride)),
        padding(static_cast<int>(axis.padding)), dilation(static_cast<int>(axis.dilation)),
        spread(static_cast<int>(axis.spread)), phases(static_cast<int>(std::min(axis.spread, axis.out))),
        longer_phases(static_cast<int>((axis.out - 1) % axis.spread) + 1),
        longer(std::max<int64_t>(1, (axis.out - 1) / axis.spread + 1)), shorter(std::max(1, longer.value - 1)) {}
  int in, out, stride, padding, dilation, spread, phases;
  int longer_phases;        // the first ones have as many pixels as the first; the others, one less
  Divisor longer, shorter;  // pixels of a phase

  __device__ Divisor pixels(int phase) const { return phase < longer_phases ? longer : shorter; }
  // The pixel of x that the first output pixel of the phase reads at that tap.
  __device__ int first_read(int phase, int tap) const {
    const int at = phase - padding + dilation * tap;
    if (spread == 1) return at;
    return at % spread ? kNowhere : at / spread;
  }
};

// blockIdx.x, which the compiler takes for a number that it has not met before.
__device__ __forceinline__ unsigned block_index() {
#ifdef __CUDACC__
  unsigned index;
  asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(index));
  return index;
#else
  return blockIdx.x;
#endif
}

struct Pixel {
  int64_t image;
  int row, column;
};

// Consecutive pixels, numbered through the images.
struct PixelRun {
  Divisor rows, columns;  // of an image
  int64_t first_image;
  int first_pixel;  // in that image

  __device__ PixelRun(Divisor rows, Divisor columns, int64_t first) : rows(rows), columns(columns) {
    const int64_t image = int64_t{rows.value} * columns.value;
    first_image = first <= INT32_MAX ? rows.quotient(columns.quotient(static_cast<int>(first))) : first / image;
    first_pixel = static_cast<int>(first - first_image * image);
  }
  __device__ Pixel pixel(int index) const {
    const int at = first_pixel + index, row = columns.quotient(at), image = rows.quotient(row);
    return {first_image + image, row - image * rows.value, at - row * columns.value};
  }
};

// Which pixels and fields a block of threads makes; the pixels are those of one phase.
struct Place : PixelRun {
  int block, row_phase, column_phase, first_out;

  // p has Lines `rows` and `columns`, and how many `column_tiles` and `groups` there are. tile_index: of the grid. The
  // tiles that read the same pixels are neighbours.
  template <typename Problem>
  __device__ Place(const Problem& p, unsigned tile_index, int tile_pixels, int tile_columns)
      : PixelRun(p.rows.longer, p.columns.longer, 0) {
    const auto next_digit = [&](unsigned base) {
      if (base == 1) return 0;
      const unsigned digit = tile_index % base;
      tile_index /= base;
      return static_cast<int>(digit);
    };
    first_out = next_digit(p.column_tiles) * tile_columns;
    column_phase = next_digit(p.columns.phases);
    row_phase = next_digit(p.rows.phases);
    block = next_digit(p.groups);
    static_cast<PixelRun&>(*this) =
        PixelRun(p.rows.pixels(row_phase), p.columns.pixels(column_phase), int64_t{tile_index} * tile_pixels);
  }
};

// In numbers; the maps need not be parts of one.
template <typename T>
int64_t offset_between(const void* map, const void* other) {
  return (reinterpret_cast<intptr_t>(other) - reinterpret_cast<intptr_t>(map)) / static_cast<intptr_t>(sizeof(T));
}

}  // namespace
}  // namespace gconv::cuda
