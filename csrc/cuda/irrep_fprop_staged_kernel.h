// irrep fprop of few fields: what a block reads of x is in shared memory as a whole, with zeros around it, and so is all of
// Ψ̂. A number of x is then read about once from device memory, not once for each tap and element, and a step has neither
// conditions nor barriers; with few fields these take longer than the products. The bits are those of
// irrep_fprop_mma_kernel.
#pragma once

#include <algorithm>

#include "divisor.h"
#include "irrep_fprop_mma_filter.h"
#include "irrep_fprop_tile.h"
#include "mma_pixels.h"

namespace gconv::cuda {
namespace {

// The rows of images with the zeros that taps reach beyond them, one image after the other.
struct Staging {
  Divisor rows, columns;  // of an image
  int pixels;             // room for so many of each element
};

// [element][pixel][two chunks of eight numbers], which change places so that eight neighbouring pixels meet no bank twice.
__device__ __forceinline__ int chunk_at(int pixel, int chunk) { return 2 * pixel + (chunk ^ (pixel >> 2 & 1)); }

// Numbers 2 · chunk + 4 i and the next, which are neighbours in A, for i = 0 … 3.
template <typename T>
__device__ __forceinline__ uint4 read_pairs(const Problem<T>& p, const T* from, int first_field) {
  uint32_t pairs[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int field = first_field + 4 * i;
    const T* const at = from + field * p.x_strides.field;
    if (p.x_width > 1) {
      pairs[i] = field < p.in_fields ? __ldg(reinterpret_cast<const uint32_t*>(at)) : 0;
    } else {
      const auto number = [&](int j) -> uint32_t {
        return field + j < p.in_fields ? __ldg(reinterpret_cast<const uint16_t*>(at + j * p.x_strides.field)) : 0;
      };
      pairs[i] = number(0) | number(1) << 16;
    }
  }
  return {pairs[0], pairs[1], pairs[2], pairs[3]};
}

template <typename T>
__device__ __forceinline__ uint4 masked(uint4 numbers, uint4 by) {
  const auto word = [](uint32_t a, uint32_t b) {
    return for_each_number<T>([](float value, float mask) { return mask <= 0 ? 0.f : value; }, a, b);
  };
  return {word(numbers.x, by.x), word(numbers.y, by.y), word(numbers.z, by.z), word(numbers.w, by.w)};
}

template <typename T, int Order>
__device__ __forceinline__ void stage(const Problem<T>& p, const Place& place, const Staging& staging, int first_row,
                                      int pixels, uint4* tile) {
#pragma unroll 1
  for (int i = threadIdx.x; i < 2 * pixels; i += kThreads) {
    const int chunk = i % 2, pixel = i / 2, row_of_tile = staging.columns.quotient(pixel), at = first_row + row_of_tile;
    const int images = staging.rows.quotient(at), row = at - images * staging.rows.value - p.rows.padding;
    const int column = pixel - row_of_tile * staging.columns.value - p.columns.padding;
    const int64_t image = place.first_image + images;
    const bool inside = image < p.batch && static_cast<unsigned>(row) < static_cast<unsigned>(p.rows.in) &&
                        static_cast<unsigned>(column) < static_cast<unsigned>(p.columns.in);
    const T* from = p.x + image * p.x_strides.batch + row * p.x_strides.row + column * p.x_strides.column +
                    int64_t{place.block} * p.in_fields * p.x_strides.field;
#pragma unroll
    for (int g = 0; g < Order; ++g, from += p.x_strides.element) {
      uint4 numbers = make_uint4(0, 0, 0, 0);
      if (inside) {
        numbers = read_pairs(p, from, 2 * chunk);
        if (p.masked) numbers = masked<T>(numbers, read_pairs(p, from + p.mask_offset, 2 * chunk));
      }
      tile[2 * g * staging.pixels + chunk_at(pixel, chunk)] = numbers;
    }
  }
}

template <typename T, typename Group, int MT, int NT, bool RelaxOutput>
__global__ void __launch_bounds__(kThreads, 3)
    irrep_fprop_staged_kernel(const __grid_constant__ Problem<T> p, const __grid_constant__ Staging staging) {
  constexpr int order = Group::table.order, kPixels = kWarps * MT * 16;
  using Filter = typename MmaFilter<T, Group, NT>::Filter;
  DYN_SHARED(shared);
  auto* filters = reinterpret_cast<Filter*>(shared);  // [bank][tap]
  uint4* tile = reinterpret_cast<uint4*>(filters + p.banks * p.size * p.size);
  T* weight = reinterpret_cast<T*>(tile + 2 * order * staging.pixels);

  const Place place(p, blockIdx.x, kPixels, 8 * NT);
  if (place.first_image >= p.batch) return;

  const auto row_of = [&](const Pixel& pixel) {  // from the first image on
    return static_cast<int>(pixel.image - place.first_image) * staging.rows.value + pixel.row;
  };
  const int first_row = row_of(place.pixel(0));
  // The last pixel may be one that is not there, beyond the rows that there is room for.
  const int rows = row_of(place.pixel(kPixels - 1)) + p.size - first_row;
  const int staged = min(rows * staging.columns.value, staging.pixels);
  const MmaFilter<T, Group, NT> filter(p, place);
  if (p.weight.numbers) filter.fetch(weight);
  typename MmaFilter<T, Group, NT>::Walk step(p, place);
  for (int i = 0; step.next(); ++i) filter.make(step, weight, filters[i]);
  cp_async_commit();
  stage<T, order>(p, place, staging, first_row, staged, tile);
  cp_async_wait<0>();
  __syncthreads();

  const int lane = threadIdx.x % 32;
  int pixels[MT];  // of the tile, that the lane gives ldmatrix the address of
#pragma unroll
  for (int m = 0; m < MT; ++m) {
    const Pixel pixel = place.pixel((threadIdx.x / 32 * MT + m) * 16 + lane % 16);
    pixels[m] = pixel.image < p.batch ? (row_of(pixel) - first_row) * staging.columns.value + pixel.column : 0;
  }
  float sums[order][MT][NT][4] = {}, total[order][MT][NT][4] = {};
  for (int bank = 0; bank < p.banks; ++bank) {
    for (Tap tap{0, 0}; tap.row < p.size; ++tap.row)
      for (tap.column = 0; tap.column < p.size; ++tap.column) {
        uint32_t x[order][MT][4];
        for_each_index<order>([&](auto g) {
          const Tap read = moved<Group, decltype(g)::value>(tap, p.size);
#pragma unroll
          for (int m = 0; m < MT; ++m) {
            const int pixel = pixels[m] + read.row * staging.columns.value + read.column;
            ldmatrix_x4(x[g][m], tile + 2 * g * staging.pixels + chunk_at(pixel, lane / 16));
          }
          if (p.relax_input) scale<T>(widen(p.relaxed_weight[bank * order + g]), x[g]);
        });
        transform_tiles<T, Group>(x);
        filter.multiply(x, *filters++, sums);
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

// How many pixels a tile can need: of consecutive ones, as many rows as they can touch, and what lies between images that
// they cross into. 0: the kernel does not know such layers.
template <typename T>
int64_t staged_pixels(const Problem<T>& p, int tile_pixels) {
  const auto is_simple = [](const Line& line) {
    return line.stride == 1 && line.dilation == 1 && line.spread == 1 && line.out > 0;
  };
  if (p.lifting || p.in_fields > 16 || p.out_fields > 16 || !is_simple(p.rows) || !is_simple(p.columns)) return 0;
  const int64_t columns = p.columns.out, image = columns * p.rows.out;
  const int64_t crossed = std::min<int64_t>(p.batch - 1, (tile_pixels - 2) / image + 1);
  const int64_t rows = (tile_pixels - 2) / columns + 2 + (p.size - 1) * (1 + crossed);
  return rows * (columns + p.size - 1);
}

// cudaErrorNotSupported: the layer is none for this kernel.
template <typename T, typename Group, int MT, int NT, bool RelaxOutput>
cudaError_t launch_staged(Problem<T> p, cudaStream_t stream) {
  constexpr int kPixels = kWarps * MT * 16;
  const int64_t pixels = staged_pixels(p, kPixels);
  if (!pixels) return cudaErrorNotSupported;
  const int64_t filter_bytes = int64_t{p.banks} * p.size * p.size * sizeof(typename MmaFilter<T, Group, NT>::Filter);
  const int64_t tile_bytes = Group::table.order * pixels * 2 * static_cast<int64_t>(sizeof(uint4));
  const int64_t bytes = filter_bytes + tile_bytes + p.weight.shared_bytes(8 * NT);
  const unsigned blocks = count_blocks(p, kPixels, 8 * NT);
  if (bytes > kMostSharedBytes || !blocks) return cudaErrorNotSupported;
  const Staging staging{Divisor(p.rows.out + p.size - 1), Divisor(p.columns.out + p.size - 1),
                        static_cast<int>(pixels)};
  const auto kernel = irrep_fprop_staged_kernel<T, Group, MT, NT, RelaxOutput>;
  if (bytes > kUnaskedSharedBytes)
    if (const cudaError_t error =
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)))
      return error;
  LAUNCH(kernel, blocks, kThreads, bytes, stream, p, staging);
  return cudaGetLastError();
}

}  // namespace
}  // namespace gconv::cuda
