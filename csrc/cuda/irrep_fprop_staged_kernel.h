// irrep fprop of few fields: what a block reads of x is in shared memory as a whole, with zeros around it, and so is all of
// Ψ̂. A number of x is then read about once from device memory, not once for each tap and element, and a step has neither
// conditions nor barriers; with few fields these take longer than the products.
#pragma once

#include <algorithm>

#include "irrep_fprop_staged_filter.h"
#include "irrep_fprop_tile.h"
#include "mma_pixels.h"
#include "staged_map.h"

namespace gconv::cuda {
namespace {

template <typename T, typename Group, int MT, int NT, bool RelaxOutput>
__global__ void __launch_bounds__(kThreads, 3)
    irrep_fprop_staged_kernel(const __grid_constant__ Problem<T> p, const __grid_constant__ StagedMap<T> map,
                              const __grid_constant__ StagedFilterLayout layout) {
  constexpr int order = Group::table.order, kPixels = kWarps * MT * 16;
  using Filter = StagedFilter<T, Group, NT>;
  DYN_SHARED(shared);
  auto* filters = reinterpret_cast<typename Filter::Planes*>(shared);  // [bank][tap]
  T* tile = reinterpret_cast<T*>(filters + p.banks * p.size * p.size);
  T* weight = tile + order * map.element_numbers();

  const Place place(p, blockIdx.x, kPixels, 8 * NT);
  if (place.first_image >= p.batch) return;

  const int first_row = map.row_of(place.first_image, place.pixel(0));
  // The last pixel may be one that is not there, beyond the rows that there is room for.
  const int last_row = map.row_of(place.first_image, place.pixel(kPixels - 1));
  const int rows = min(last_row + p.size - first_row, map.most_rows);
  const Filter filter{p, place, layout};
  p.weight.numbers ? filter.fetch(weight) : filter.copy(filters);
  cp_async_commit();
  stage_map<order, T>(map, place.first_image, place.block, first_row, rows, nullptr, tile);
  cp_async_commit();
  if (p.weight.numbers) {
    cp_async_wait<1>();
    __syncthreads();
    filter.transform(weight, filters);
  }
  cp_async_wait<0>();
  __syncthreads();

  const int lane = threadIdx.x % 32;
  const T* from[MT];  // of the lane's pixel, to which tap and element add what all lanes add
#pragma unroll
  for (int m = 0; m < MT; ++m) {
    const Pixel pixel = place.pixel((threadIdx.x / 32 * MT + m) * 16 + lane % 16);
    const int row = pixel.image < p.batch ? map.row_of(place.first_image, pixel) - first_row : 0;
    from[m] = tile + map.place(lane / 16, row * map.image_columns.value + pixel.column);
  }
  float sums[order][MT][NT][4] = {}, total[order][MT][NT][4] = {};
  for (int bank = 0; bank < p.banks; ++bank) {
    for (Tap tap{0, 0}; tap.row < p.size; ++tap.row)
      for (tap.column = 0; tap.column < p.size; ++tap.column) {
        uint32_t x[order][MT][4];
        for_each_index<order>([&](auto g) {
          const Tap read = moved<Group, decltype(g)::value>(tap, p.size);
          const int by = map.place(0, read.row * map.image_columns.value + read.column) + g * map.element_numbers();
#pragma unroll
          for (int m = 0; m < MT; ++m) ldmatrix_x4(x[g][m], from[m] + by);
          if (p.relax_input) scale<T>(widen(p.relaxed_weight[bank * order + g]), x[g]);
        });
        transform_tiles<T, Group>(x);
        MmaFilter<T, Group, NT>::multiply(x, filters++->planes, sums);
      }
    if (RelaxOutput) add_bank<Group>(p.relaxed_weight + bank * order, sums, total);
  }
  if constexpr (RelaxOutput) {
    store_tile<T, order, MT, NT>(p, place, total);
  } else {
    transform_back<Group>(sums);
    store_tile<T, order, MT, NT>(p, place, sums);
  }
}

// cudaErrorNotSupported: the layer is none for this kernel.
template <typename T, typename Group, int MT, int NT, bool RelaxOutput>
cudaError_t launch_staged(const IrrepFpropParams& params, Problem<T> p, cudaStream_t stream) {
  constexpr int order = Group::table.order, kPixels = kWarps * MT * 16;
  const ConvShape& s = params.shape;
  if (s.lifting || s.in_fields > kStagedFields || s.out_fields > kStagedFields || !is_simple(s.rows) ||
      !is_simple(s.columns) || s.taps() > kThreads)
    return cudaErrorNotSupported;
  const StagedMap<T> map(params.x, params.x_activated, params.x_strides, s.in_fields, s.batch, s.rows, s.columns,
                         s.size, kPixels, 0);
  // With room for ψ, also where Ψ̂ is given, so that this does not choose the kernel.
  const StagedFilterLayout layout(p.weight, NT * 8);
  const int64_t filter_bytes = p.banks * s.taps() * sizeof(typename StagedFilter<T, Group, NT>::Planes);
  const int64_t bytes =
      filter_bytes + map.bytes(order) + int64_t{p.banks} * layout.bank_numbers * static_cast<int64_t>(sizeof(T));
  const unsigned blocks = count_blocks(p, kPixels, 8 * NT);
  if (bytes > kMostSharedBytes || !blocks || !map.fits()) return cudaErrorNotSupported;
  const auto kernel = irrep_fprop_staged_kernel<T, Group, MT, NT, RelaxOutput>;
  if (bytes > kUnaskedSharedBytes)
    if (const cudaError_t error =
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)))
      return error;
  LAUNCH(kernel, blocks, kThreads, bytes, stream, p, map, layout);
  return cudaGetLastError();
}

}  // namespace
}  // namespace gconv::cuda
