// A part of a feature map in shared memory, for kernels of few fields in 16-bit types: rows of images with the zeros that
// taps reach beyond them, one image after the other, as [element][two chunks of eight fields][pixel][field].
#pragma once

#include <algorithm>

#include "conv_place.h"
#include "mma_operand.h"

namespace gconv::cuda {
namespace {

constexpr int kStagedChunk = 8, kStagedFields = 2 * kStagedChunk;

// Whether such kernels can read the axis.
inline bool is_simple(const Axis& axis) {
  return axis.stride == 1 && axis.dilation == 1 && axis.spread == 1 && axis.out > 0;
}

template <typename T>
struct StagedMap {
  static_assert(sizeof(T) == 2);

  // Of what `tile_pixels` consecutive pixels of the output read with size × size taps; rows and columns: of the map.
  // `spare`: rows beyond those.
  StagedMap(const void* data, const void* activated, const MapStrides& strides, int64_t fields, int64_t batch,
            const Axis& rows, const Axis& columns, int size, int64_t tile_pixels, int spare)
      : data(static_cast<const T*>(data)), strides(strides), batch(batch), fields(static_cast<int>(fields)),
        rows(static_cast<int>(rows.in)), columns(static_cast<int>(columns.in)),
        row_padding(static_cast<int>(rows.padding)), column_padding(static_cast<int>(columns.padding)),
        masked(activated), image_rows(rows.out + size - 1), image_columns(columns.out + size - 1), vectors(1) {
    if (masked) mask_offset = offset_between<T>(data, activated);
    const int map_widths[] = {map_width<T>(data, strides, fields, kStagedChunk),
                              masked ? map_width<T>(activated, strides, fields, kStagedChunk) : kStagedChunk};
    const int width_of_all = std::min(map_widths[0], map_widths[1]);
    in_pairs = width_of_all > 1;
    width = masked ? 1 : width_of_all == kStagedChunk ? kStagedChunk : std::min(2, width_of_all);
    vectors = Divisor(fields / width);
    // As many rows as the pixels can touch, and what lies between images that they cross into.
    const int64_t image = columns.out * rows.out;
    const int64_t crossed = std::min<int64_t>(batch - 1, (tile_pixels - 2) / image + 1);
    most_rows = static_cast<int>((tile_pixels - 2) / columns.out + 2 + (size - 1) * (1 + crossed)) + spare;
    const int64_t room = int64_t{most_rows} * image_columns.value, spread = (12 - room % 8) % 8;
    // So that two planes of chunks lie in different banks; of more pixels than int has, none that fits.
    pixels = static_cast<int>(std::min<int64_t>(room + spread, INT32_MAX));
  }
  bool fits() const { return 1. * columns * strides.column <= INT32_MAX; }
  int64_t bytes(int elements) const { return int64_t{elements} * pixels * kStagedFields * sizeof(T); }

  // Of a pixel in a tile whose first row is `first_row`; rows are counted from an image on.
  __device__ int row_of(int64_t first_image, const Pixel& pixel) const {
    return static_cast<int>(pixel.image - first_image) * image_rows.value + pixel.row;
  }
  __device__ int element_numbers() const { return pixels * kStagedFields; }
  // Where chunk `chunk` of a staged pixel is.
  __device__ int place(int chunk, int pixel) const { return (chunk * pixels + pixel) * kStagedChunk; }

  const T* data;
  MapStrides strides;
  int64_t batch;
  int fields, rows, columns, row_padding, column_padding;
  bool masked, in_pairs;
  int64_t mask_offset = 0;            // from a number to that whose sign masks it
  Divisor image_rows, image_columns;  // staged
  Divisor vectors;                    // of a pixel
  int width;                          // numbers that are copied as one vector: 8 or 2; 1: none
  int most_rows, pixels;              // room for so many
};

// A staged row, where it is in the map: field 0 of element 0 of its first column, which may be one of the zeros.
template <typename T>
struct StagedRow {
  const T* from;
  bool inside;

  __device__ StagedRow(const StagedMap<T>& map, int64_t first_image, int block, int row) {
    const int images = map.image_rows.quotient(row), at = row - images * map.image_rows.value - map.row_padding;
    const int64_t image = first_image + images;
    inside = image < map.batch && static_cast<unsigned>(at) < static_cast<unsigned>(map.rows);
    from = map.data + image * map.strides.batch + at * map.strides.row - map.column_padding * map.strides.column +
           int64_t{block} * map.fields * map.strides.field;
  }
};

// Copied without waiting, neighbouring threads taking neighbours in memory. What is beyond the last field stays as it is.
template <int Width, int Order, typename T>
__device__ __forceinline__ void stage_vectors(const StagedMap<T>& map, const StagedRow<T>& row, T* tile) {
  const int vectors = map.vectors.value, count = map.image_columns.value * vectors;
  const int column_stride = static_cast<int>(map.strides.column);
#pragma unroll 1
  for (int i = threadIdx.x % 32; i < count; i += 32) {
    const int column = map.vectors.quotient(i), field = (i - column * vectors) * Width;
    const bool inside =
        row.inside && static_cast<unsigned>(column - map.column_padding) < static_cast<unsigned>(map.columns);
    const T* from = row.from + (column * column_stride + field);
    T* to = tile + map.place(field / kStagedChunk, column) + field % kStagedChunk;
#pragma unroll
    for (int g = 0; g < Order; ++g, from += map.strides.element, to += map.element_numbers())
      if constexpr (Width == 8)
        cp_async_16(to, from, inside);
      else
        cp_async_4(to, from, inside);
  }
}

// Eight neighbouring fields, zeros for those that there are not.
template <typename T>
__device__ __forceinline__ uint4 read_chunk(const StagedMap<T>& map, const T* from, int first_field) {
  uint32_t pairs[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int field = first_field + 2 * i;
    const T* const at = from + field * map.strides.field;
    const auto number = [&](int j) -> uint32_t {
      return field + j < map.fields ? __ldg(reinterpret_cast<const uint16_t*>(at + j * map.strides.field)) : 0;
    };
    if (map.in_pairs)
      pairs[i] = field < map.fields ? __ldg(reinterpret_cast<const uint32_t*>(at)) : 0;
    else
      pairs[i] = number(0) | number(1) << 16;
  }
  return {pairs[0], pairs[1], pairs[2], pairs[3]};
}

template <typename T, typename Function>
__device__ __forceinline__ uint4 for_each_of_chunk(Function function, uint4 a, uint4 b) {
  return {for_each_number<T>(function, a.x, b.x), for_each_number<T>(function, a.y, b.y),
          for_each_number<T>(function, a.z, b.z), for_each_number<T>(function, a.w, b.w)};
}

// Through registers. scale: [element] or nullptr.
template <int Order, typename T>
__device__ __forceinline__ void stage_chunks(const StagedMap<T>& map, const StagedRow<T>& row, const T* scale,
                                             T* tile) {
  const int columns = map.image_columns.value;
#pragma unroll 1
  for (int i = threadIdx.x % 32; i < 2 * columns; i += 32) {
    const int chunk = i >= columns, column = i - chunk * columns;
    const bool inside =
        row.inside && static_cast<unsigned>(column - map.column_padding) < static_cast<unsigned>(map.columns);
    const T* from = row.from + column * map.strides.column;
#pragma unroll
    for (int g = 0; g < Order; ++g, from += map.strides.element) {
      uint4 numbers = make_uint4(0, 0, 0, 0);
      if (inside) {
        numbers = read_chunk(map, from, chunk * kStagedChunk);
        if (map.masked)
          numbers = for_each_of_chunk<T>([](float value, float by) { return by <= 0 ? 0.f : value; }, numbers,
                                         read_chunk(map, from + map.mask_offset, chunk * kStagedChunk));
        if (scale) {
          const float w = widen(scale[g]);
          numbers = for_each_of_chunk<T>([w](float value, float) { return product(w, value); }, numbers, numbers);
        }
      }
      *reinterpret_cast<uint4*>(tile + g * map.element_numbers() + map.place(chunk, column)) = numbers;
    }
  }
}

// `count` rows from first_row on, counted from the first image on; of a block of fields. All threads call it; what is
// copied by cp.async is there after its wait.
template <int Order, typename T>
__device__ __forceinline__ void stage_map(const StagedMap<T>& map, int64_t first_image, int block, int first_row,
                                          int count, const T* scale, T* tile) {
  const bool in_vectors = map.width > 1 && !scale;
  if (in_vectors && map.fields < kStagedFields) {  // zeros beyond the last field
    for (int i = threadIdx.x; i < 2 * Order * map.pixels; i += blockDim.x) reinterpret_cast<uint4*>(tile)[i] = uint4{};
    __syncthreads();
  }
#pragma unroll 1
  for (int i = threadIdx.x / 32; i < count; i += blockDim.x / 32) {
    const StagedRow<T> row(map, first_image, block, first_row + i);
    T* const to = tile + map.place(0, i * map.image_columns.value);
    if (!in_vectors)
      stage_chunks<Order>(map, row, scale, to);
    else if (map.width == 8)
      stage_vectors<8, Order>(map, row, to);
    else
      stage_vectors<2, Order>(map, row, to);
  }
}

}  // namespace
}  // namespace gconv::cuda
