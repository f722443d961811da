// The kernel of fused_fprop. A block makes a tile of pixels × out fields of all elements. What multiplies is a Tile:
//
//   Number, kFields, kOutFields, kPixels                fields of a step, and what a block makes
//   kMatrix, matrix_at(field, out), number(sum)         a matrix of the filter in shared memory, in Numbers
//   X, Sums                                             a thread's part of x for one step, and of y
//   load(p, read, field, field_offset, x)               x of a step
//   multiply(x, matrices, slots, sums)                  slots[u]: the matrix for y's element u
//   store(p, place, sums)
#pragma once

#include "fused_filter.h"

namespace gconv::cuda {
namespace {

template <typename Tile, int Forms>
__global__ void __launch_bounds__(kThreads)
    fused_fprop_kernel(const __grid_constant__ Problem<typename Tile::Number> p) {
  DYN_SHARED(shared);
  const Place place(p, blockIdx.x, Tile::kPixels, Tile::kOutFields);
  if (place.first_image >= p.batch) return;
  const Filter<Tile, Forms> filter(p, place, shared);
  const Tile tile(p, place);
  typename Tile::Sums sums = {};
  typename Tile::X x = {};
  __syncthreads();

  Walk<typename Tile::Number, Tile::kFields> read(p, filter.reads);  // the step whose x is loaded next
  if (read.more()) {
    filter.stage(p, place, read, filter.buffer(0, p.source_bits));
    tile.load(p, read.read, read.field, read.field_offset, x);
  }
  for (int buffer = 0; read.more(); buffer ^= 1) {
    __syncthreads();  // the round's matrices have come for all, and all are through with those of the round before
    auto next = read;
    while (next.advance()) continue;
    if (next.more()) filter.stage(p, place, next, filter.buffer(buffer ^ 1, p.source_bits));
    const auto* const matrices = filter.buffer(buffer, p.source_bits);
#pragma unroll 1
    for (bool same = true; same;) {
      const int step = read.step();
      const typename Tile::X now = x;
      same = read.advance();
      if (read.more()) tile.load(p, read.read, read.field, read.field_offset, x);
      tile.multiply(now, matrices, p.slots[step], sums);
    }
  }
  // Found again, so that no registers hold it through the loop.
  Tile::store(p, Place(p, block_index(), Tile::kPixels, Tile::kOutFields), sums);
}

template <typename Tile, int Forms, typename T>
cudaError_t launch_fused_fprop(Problem<T> p, cudaStream_t stream) {
  static_assert(std::is_same_v<T, typename Tile::Number>);
  p.column_tiles = (p.out_fields - 1) / Tile::kOutFields + 1;
  const int64_t rows = (p.rows.out - 1) / p.rows.spread + 1, columns = (p.columns.out - 1) / p.columns.spread + 1;
  const int64_t pixel_tiles = (p.batch * rows * columns - 1) / Tile::kPixels + 1;
  const double blocks = 1. * p.column_tiles * p.rows.phases * p.columns.phases * p.groups * pixel_tiles;
  const int64_t bytes = Filter<Tile, Forms>::bytes(p);
  if (blocks > INT32_MAX || rows * columns > INT32_MAX / 2 || bytes > 96 * 1024) return cudaErrorNotSupported;
  const auto kernel = fused_fprop_kernel<Tile, Forms>;
  if (bytes > 48 * 1024)  // more than a block has without asking
    if (const cudaError_t error =
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)))
      return error;
  LAUNCH(kernel, static_cast<unsigned>(blocks), kThreads, bytes, stream, p);
  return cudaGetLastError();
}

}  // namespace
}  // namespace gconv::cuda
