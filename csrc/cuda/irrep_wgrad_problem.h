// What a block of threads of irrep_wgrad works on, and where its sums go, in the words of irrep_wgrad_plan.h.
#pragma once

#include <algorithm>

#include "irrep_wgrad_result.h"
#include "map_chunks.h"

namespace gconv::cuda {

template <typename T>
struct WgradProblem : WgradResult<T> {
  WgradProblem(const IrrepWgradParams& params, const WgradPlan& plan)
      : WgradResult<T>(params, plan),
        x(params.x, nullptr, params.x_strides, params.shape.in_fields, params.shape.rows, params.shape.columns),
        dy(params.dy, params.dy_activated, params.dy_strides, params.shape.out_fields, of_y(params.shape.rows),
           of_y(params.shape.columns)),
        y_columns(std::max<int64_t>(1, params.shape.columns.out)),
        y_pixels(std::max<int64_t>(1, params.shape.rows.out * params.shape.columns.out)), lifting(params.shape.lifting),
        row_dilation(static_cast<int>(params.shape.rows.dilation)),
        column_dilation(static_cast<int>(params.shape.columns.dilation)), jobs(plan.jobs), job_blocks(plan.job_blocks),
        out_tiles(plan.out_tiles), pixels(plan.pixels), share_pixels(plan.share_pixels),
        relaxed_weight(static_cast<const T*>(params.relaxed_weight)), relax_input(params.relax_input) {}

  static Axis of_y(const Axis& axis) {
    Axis own;
    own.in = axis.out;
    return own;
  }

  Map<T> x, dy;
  Divisor y_columns, y_pixels;  // of one image
  bool lifting;
  int row_dilation, column_dilation;
  int jobs, job_blocks, out_tiles;
  int64_t pixels, share_pixels;
  const T* relaxed_weight;
  bool relax_input;
};

// tile_index: of the grid. Blocks of threads that read the same pixels are neighbours.
template <typename T>
__device__ inline WgradPart wgrad_part(const WgradProblem<T>& p, int tile_index, int warps, int warp, int in_fields,
                                       int out_fields) {
  const auto next_digit = [&](int base) {
    const int digit = tile_index % base;
    tile_index /= base;
    return digit;
  };
  const int job = next_digit(p.job_blocks) * warps + warp;
  const int out_tile = next_digit(p.out_tiles), block = next_digit(p.blocks), bank = next_digit(p.banks);
  return {job % p.orbits, job / p.orbits * in_fields, out_tile * out_fields, block, bank, tile_index, job < p.jobs};
}

// The pixels of y in one share.
struct SharePixels {
  int first_image, first_pixel, count;  // first_pixel: in that image

  template <typename T>
  __device__ Pixel pixel(const WgradProblem<T>& p, int index) const {
    const int at = first_pixel + index, image = p.y_pixels.quotient(at), in_image = at - image * p.y_pixels.value;
    const int row = p.y_columns.quotient(in_image);
    return {first_image + image, row, in_image - row * p.y_columns.value};
  }
};

template <typename T>
__device__ inline SharePixels share_pixels(const WgradProblem<T>& p, int share) {
  const int64_t first = share * p.share_pixels;
  return {static_cast<int>(first / p.y_pixels.value), static_cast<int>(first % p.y_pixels.value),
          static_cast<int>(min(p.share_pixels, p.pixels - first))};
}

}  // namespace gconv::cuda
