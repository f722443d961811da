// What a block of threads of irrep_wgrad works on, and where its sums go, in the words of irrep_wgrad_plan.h.
#pragma once

#include <algorithm>

#include "fourier.h"
#include "irrep_wgrad_plan.h"
#include "map_chunks.h"
#include "wgrad_shares.h"

namespace gconv::cuda {

template <typename T>
struct WgradProblem {
  WgradProblem(const IrrepWgradParams& params, const WgradPlan& plan)
      : x(params.x, nullptr, params.x_strides, params.shape.in_fields, params.shape.rows, params.shape.columns),
        dy(params.dy, params.dy_activated, params.dy_strides, params.shape.out_fields, of_y(params.shape.rows),
           of_y(params.shape.columns)),
        y_columns(std::max<int64_t>(1, params.shape.columns.out)),
        y_pixels(std::max<int64_t>(1, params.shape.rows.out * params.shape.columns.out)),
        matrices(params.shape.group->matrices), size(params.shape.size), lifting(params.shape.lifting),
        row_dilation(static_cast<int>(params.shape.rows.dilation)),
        column_dilation(static_cast<int>(params.shape.columns.dilation)), jobs(plan.jobs), job_blocks(plan.job_blocks),
        orbits(plan.orbits), out_tiles(plan.out_tiles), blocks(static_cast<int>(params.shape.groups)),
        banks(static_cast<int>(params.banks)), pixels(plan.pixels), share_pixels(plan.share_pixels),
        relaxed_weight(static_cast<const T*>(params.relaxed_weight)), relax_input(params.relax_input),
        grad_weight(static_cast<T*>(params.grad_weight)),
        shares(plan.written_directly ? nullptr : static_cast<accumulate_t<T>*>(params.workspace)) {}

  static Axis of_y(const Axis& axis) {
    Axis own;
    own.in = axis.out;
    return own;
  }

  Map<T> x, dy;
  Divisor y_columns, y_pixels;  // of one image
  std::array<Matrix, kMaxOrder> matrices;
  int size;
  bool lifting;
  int row_dilation, column_dilation;
  int jobs, job_blocks, orbits, out_tiles, blocks, banks;
  int64_t pixels, share_pixels;
  const T* relaxed_weight;
  bool relax_input;
  T* grad_weight;
  accumulate_t<T>* shares;  // [share, banks, orbit, g, pair of fields], before the division by stabilisers; or nullptr
};

// Which part of the work is a warp's.
struct WgradPart {
  int orbit, in_first, out_first, block, bank, share;
  bool active;  // whether there is a job for it
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

// The relaxed weights [|P|] of a bank by which x, or dy, is multiplied; nullptr: by none.
template <typename T>
__device__ const T* wgrad_scale(const WgradProblem<T>& p, int bank, int order, bool input) {
  return p.relaxed_weight && input == p.relax_input ? p.relaxed_weight + bank * order : nullptr;
}

// Sums in all planes of neighbouring in fields (two need an even number of them) and one out field, as gradients; nothing
// beyond the last field.
template <typename Group, int Neighbours, typename T>
__device__ __forceinline__ void store_gradients(const WgradProblem<T>& p, const WgradPart& part, int tap, int in_field,
                                                int out_field, accumulate_t<T> (&f)[Neighbours][Group::table.order]) {
  constexpr int order = Group::table.order;
#pragma unroll
  for (int i = 0; i < Neighbours; ++i) {
    for_each_index<order>([&](auto plane) {
      constexpr double factor = inverse_scales<Group>()[decltype(plane)::value];
      f[i][plane] *= static_cast<accumulate_t<T>>(factor);
    });
    inverse_fourier<Group>(f[i]);
  }
  if (in_field >= p.x.fields || out_field >= p.dy.fields) return;
  const int taps = p.size * p.size;
  const int64_t pairs = int64_t{p.blocks} * p.dy.fields * p.x.fields;
  const int64_t pair = (int64_t{part.block} * p.dy.fields + out_field) * p.x.fields + in_field;
  const int64_t slot = ((int64_t{part.share} * p.banks + part.bank) * p.orbits + part.orbit) * order;
#pragma unroll
  for (int g = 0; g < order; ++g) {
    if (p.shares) {
      struct alignas(Neighbours * sizeof(accumulate_t<T>)) Numbers {
        accumulate_t<T> number[Neighbours];
      } numbers;
#pragma unroll
      for (int i = 0; i < Neighbours; ++i) numbers.number[i] = f[i][g];
      *reinterpret_cast<Numbers*>(p.shares + (slot + g) * pairs + pair) = numbers;
    } else {
#pragma unroll
      for (int i = 0; i < Neighbours; ++i)
        p.grad_weight[((part.bank * pairs + pair + i) * order + g) * taps + moved_tap(p.matrices[g], tap, p.size)] =
            narrow<T>(f[i][g]);
    }
  }
}

}  // namespace gconv::cuda
