// What irrep_fprop_mma and irrep_fprop_wgmma have in common: the transform of the sums that a thread has in its registers,
// and the grid.
#pragma once

#include "fourier.h"
#include "irrep_fprop_steps.h"
#include "operand_transform.h"

namespace gconv::cuda {
namespace {

// In place: planes of ŷ, each in the registers of MT × NT of mma's sums -> elements of y.
template <typename Group, int MT, int NT>
__device__ __forceinline__ void transform_back(float (&sums)[Group::table.order][MT][NT][4]) {
  constexpr int order = Group::table.order;
#pragma unroll
  for (int i = 0; i < 4 * MT * NT; ++i) {
    const int m = i / 4 / NT, n = i / 4 % NT, at = i % 4;
    float f[order];
    for_each_index<order>([&](auto g) {
      constexpr float scale = inverse_scales<Group>()[decltype(g)::value];
      f[g] = sums[g][m][n][at] * scale;
    });
    inverse_fourier<Group>(f);
#pragma unroll
    for (int g = 0; g < order; ++g) sums[g][m][n][at] = f[g];
  }
}

// total += w · y of the bank whose planes of ŷ the sums are, which begin anew.
template <typename Group, typename T, int MT, int NT>
__device__ __forceinline__ void add_bank(const T* weights, float (&sums)[Group::table.order][MT][NT][4],
                                         float (&total)[Group::table.order][MT][NT][4]) {
  transform_back<Group>(sums);
#pragma unroll
  for (int u = 0; u < Group::table.order; ++u) {
    const float w = widen(weights[u]);
#pragma unroll
    for (int i = 0; i < 4 * MT * NT; ++i) {
      float& sum = sums[u][i / 4 / NT][i / 4 % NT][i % 4];
      total[u][i / 4 / NT][i / 4 % NT][i % 4] += w * sum;
      sum = 0;
    }
  }
}

// Of a grid of tiles of that many pixels and output fields; 0: more than a grid can have.
template <typename T>
unsigned count_blocks(Problem<T>& p, int tile_pixels, int tile_columns) {
  p.column_tiles = (p.out_fields - 1) / tile_columns + 1;
  const int64_t rows = (p.rows.out - 1) / p.rows.spread + 1, columns = (p.columns.out - 1) / p.columns.spread + 1;
  const int64_t pixel_tiles = (p.batch * rows * columns - 1) / tile_pixels + 1;
  const double blocks = 1. * p.column_tiles * p.rows.phases * p.columns.phases * p.groups * pixel_tiles;
  return blocks > INT32_MAX || rows * columns > INT32_MAX / 2 ? 0 : static_cast<unsigned>(blocks);
}

}  // namespace
}  // namespace gconv::cuda
