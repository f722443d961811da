// The device code of irrep_fprop_simt.cu: one block's tile of pixels × out fields of all elements.
#pragma once

#include <algorithm>
#include <type_traits>

#include "../conv_shape.h"
#include "fourier.h"
#include "irrep_weight.h"
#include "warp_matrix.h"

namespace gconv::cuda::simt {

template <typename T, int N>
struct alignas(N * sizeof(T)) Vector {
  T at[N];
};

template <int N, typename T>
__device__ __forceinline__ void load_vector(T* to, const T* from) {
  const Vector<T, N> numbers = *reinterpret_cast<const Vector<T, N>*>(from);
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] = numbers.at[i];
}

// What a block makes: `pixels` × `out_fields` of all elements; a thread thread_pixels × thread_fields of each plane.
template <typename Group, typename T, int OutFields>
struct Tile {
  static constexpr int order = Group::table.order, out_fields = OutFields;
  static constexpr int vector = 16 / sizeof(T);  // numbers of the widest load
  static constexpr int threads = OutFields < 64 ? 128 : 256;
  static constexpr bool is_double = std::is_same_v<T, double>;
  // The larger the tile of a thread, the fewer loads from shared memory a product; the registers set the limit.
  static constexpr int thread_pixels = is_double || OutFields < 32 || order == 8 ? 4 : 8;
  static constexpr int thread_fields = is_double || OutFields < 16 ? 2 : 4;
  static constexpr int pixels = threads * thread_pixels * thread_fields / OutFields;
  static constexpr int pixel_groups = pixels / thread_pixels, field_groups = OutFields / thread_fields;
  static_assert(thread_pixels % vector == 0 && thread_fields * sizeof(T) <= 16);
  static_assert(pixel_groups % 8 == 0 && field_groups % 4 == 0);

  // A step has `in_fields` fields of one orbit, the more the fewer registers they and the sums take. A thread loads
  // `load_fields` of one pixel, `load_vector` at once where it can.
  static constexpr int in_fields = OutFields == 64 || (OutFields == 32 && thread_pixels == 4) ? 8
                                   : is_double && order == 8                                  ? 2
                                                                                              : 4;
  static constexpr int loaders = threads / pixels, load_fields = in_fields / loaders;
  static constexpr int load_vector = std::min(load_fields, vector);
  static_assert(loaders * pixels == threads && load_fields * loaders == in_fields);

  // Of Ψ̂ a thread copies a vector of each `copy_rows`th row; those are of one plane.
  static constexpr int vectors_of_row = OutFields / vector, copy_rows = threads / vectors_of_row;
  static_assert(copy_rows % order == 0);

  // In shared memory, in numbers: X̂ [buffer][in field][plane][pixel], Ψ̂ [buffer][in field][plane][out field]; at the
  // end, in their place, y [out field][pixel] of one element. Rows are padded against bank conflicts between threads
  // that hold fields of one pixel.
  static constexpr int padding = std::max<int>(vector, 64 / (load_fields * sizeof(T)));
  static constexpr int x_row = order * pixels + padding, x_buffer = in_fields * x_row;
  static constexpr int filter_row = order * OutFields, filter_buffer = in_fields * filter_row;
  static constexpr int y_row = pixels + vector;
  static constexpr int results = OutFields * y_row, numbers = std::max(2 * x_buffer + 2 * filter_buffer, results);
};

// What a tap reads for one element of x: the pixel at (row, column) from a pixel's base, and its offset in memory.
struct alignas(16) Shift {
  int row, column;
  int64_t offset;
};
constexpr int kOutside = -(1 << 30);  // the row of what is never inside a map

// What a block's threads have in common, in shared memory to spare their registers.
struct Place {
  int block, first_field, phase;  // block of fields, and the first out field of it
  int orbits;                     // that read anything
};

template <typename T>
struct Problem {
  std::array<Matrix, kMaxOrder> matrices;
  std::array<int, kMaxOrder> inverse;
  Axis rows, columns;
  MapStrides x_strides, y_strides;
  Weight<T> weight;  // or else `filter`
  const T *x, *x_activated, *filter, *relaxed_weight, *bias;
  T* y;
  int64_t batch;
  int in_fields, out_fields, banks, blocks, size;
  bool lifting, relax_input, relu;
  bool x_by_fields, y_by_fields;   // whether neighbouring threads take neighbouring fields, or else pixels
  bool x_vectors, filter_vectors;  // whether a thread may read several fields at once
  unsigned field_tiles, pixel_tiles, phases;
};

// Output pixels spread·p + phase.
__host__ __device__ inline int64_t phase_size(const Axis& axis, int64_t phase) {
  return (axis.out - phase + axis.spread - 1) / axis.spread;
}

// One block's work. Its threads meet twice on X̂: first each makes X̂ of one pixel and some in fields, then each
// multiplies several pixels with several out fields.
template <typename Group, typename T, typename Tile>
struct Block {
  static constexpr int kOrder = Group::table.order;

  const Problem<T>& problem;
  T *x_planes, *filter_planes, *staged;
  int64_t* x_offsets;  // [thread]: of its pixel and first in field
  int64_t* y_offsets;  // [pixel]; -1: none
  Shift* shifts;       // [tap][element]
  int* taps;           // those that start an orbit which reads anything
  Place* place;
  int* positions;  // [tap][element], where Ψ stands in ψ
  T* weight;       // what Weight fetches

  int thread;
  int load_pixel, load_field, load_step;  // of X̂: the first in field of this thread, and the distance to the next
  int row, column;
  int pixel_group, field_group;
  // The step that is loaded next.
  int orbit, field, buffer = 0;
  int64_t x_offset;
  const Shift* orbit_shifts;
  int64_t filter_offset;
  T sums[kOrder][Tile::thread_pixels][Tile::thread_fields];

  __device__ __forceinline__ Block(const Problem<T>& problem, unsigned char* shared) : problem(problem) {
    x_planes = reinterpret_cast<T*>(shared);
    filter_planes = x_planes + 2 * Tile::x_buffer;
    staged = x_planes;
    x_offsets = reinterpret_cast<int64_t*>(x_planes + Tile::numbers);
    y_offsets = x_offsets + Tile::threads;
    place = reinterpret_cast<Place*>(y_offsets + Tile::pixels);
    shifts = reinterpret_cast<Shift*>(place + 1);
    const int tap_count = problem.size * problem.size;
    taps = reinterpret_cast<int*>(shifts + tap_count * kOrder);
    positions = taps + tap_count;
    weight = reinterpret_cast<T*>(shared + weight_offset(problem.size));
    thread = threadIdx.x;
    // Lanes that differ in bit 0 read the same pixels, in bit 1 the same fields, so that shared memory serves half a
    // warp at once.
    const int lane = thread % 32, warp = thread / 32;
    constexpr int warps_of_fields = Tile::field_groups / 4;
    field_group = (lane & 1) + (lane >> 1 & 2) + warp % warps_of_fields * 4;
    pixel_group = (lane >> 1 & 1) + (lane >> 2 & 6) + warp / warps_of_fields * 8;
  }

  __host__ __device__ static constexpr int64_t weight_offset(int64_t size) {
    const int64_t of_tap = kOrder * (sizeof(Shift) + sizeof(int)) + sizeof(int);
    const int64_t bytes = Tile::numbers * sizeof(T) + (Tile::threads + Tile::pixels) * sizeof(int64_t) + sizeof(Place) +
                          size * size * of_tap;
    return (bytes + 7) / 8 * 8;
  }
  // Of all that lies there.
  static int64_t shared_bytes(const Weight<T>& weight) {
    return weight_offset(weight.pair.size) + weight.shared_bytes(Tile::out_fields);
  }

  // false: no pixel of this phase is left for the block.
  __device__ __forceinline__ bool find_pixels() {
    const Axis &rows = problem.rows, &columns = problem.columns;
    unsigned index = blockIdx.x;
    const int first_field = static_cast<int>(index % problem.field_tiles) * Tile::out_fields;
    index /= problem.field_tiles;
    const int64_t first_pixel = int64_t{index % problem.pixel_tiles} * Tile::pixels;
    index /= problem.pixel_tiles;
    const int phase = static_cast<int>(index % problem.phases), block = static_cast<int>(index / problem.phases);
    if (thread == 0) *place = {block, first_field, phase, 0};

    const int64_t row_phase = phase / columns.spread, column_phase = phase % columns.spread;
    const int64_t height = phase_size(rows, row_phase), width = phase_size(columns, column_phase);
    if (height <= 0 || width <= 0 || first_pixel >= problem.batch * height * width) return false;

    load_pixel = problem.x_by_fields ? thread / Tile::loaders : thread % Tile::pixels;
    const int loader = problem.x_by_fields ? thread % Tile::loaders : thread / Tile::pixels;
    load_field = problem.x_by_fields ? loader * Tile::load_fields : loader;
    load_step = problem.x_by_fields ? 1 : Tile::loaders;
    const int64_t pixel = first_pixel + load_pixel, image = pixel / (height * width), at = pixel % (height * width);
    const int64_t p = at / width, q = at % width;
    const bool exists = image < problem.batch;
    row = exists ? static_cast<int>(p * rows.stride) : kOutside;
    column = static_cast<int>(q * columns.stride);
    const MapStrides &xs = problem.x_strides, &ys = problem.y_strides;
    x_offsets[thread] = image * xs.batch + (int64_t{block} * problem.in_fields + load_field) * xs.field +
                        p * rows.stride * xs.row + q * columns.stride * xs.column;
    y_offsets[load_pixel] = exists ? image * ys.batch + (p * rows.spread + row_phase) * ys.row +
                                         (q * columns.spread + column_phase) * ys.column
                                   : -1;
    return true;
  }

  // Position `tap` of the axis, for output pixel `phase`, in pixels of x; kOutside where it falls between two of them.
  __device__ __forceinline__ static int position(const Axis& axis, int64_t phase, int tap) {
    const int64_t at = axis.stride * phase + axis.dilation * tap - axis.padding;
    return at % axis.spread == 0 ? static_cast<int>(at / axis.spread) : kOutside;
  }

  // The orbits of this phase, in ascending order of their first taps.
  __device__ __forceinline__ void find_orbits() {
    const int size = problem.size, tap_count = size * size;
    const int64_t row_phase = place->phase / problem.columns.spread;
    const int64_t column_phase = place->phase % problem.columns.spread;
    for (int i = thread; i < tap_count * kOrder; i += Tile::threads) {
      const int moved = moved_tap(problem.matrices[i % kOrder], i / kOrder, size);
      const int row = position(problem.rows, row_phase, moved / size);
      const int column = position(problem.columns, column_phase, moved % size);
      const bool reads = row != kOutside && column != kOutside;
      const MapStrides& xs = problem.x_strides;
      if (problem.weight.numbers)
        positions[i] = problem.weight.pair.position(i % kOrder, problem.inverse[i % kOrder], moved, i / kOrder);
      shifts[i] = {reads ? row : kOutside, column, i % kOrder * xs.element + row * xs.row + column * xs.column};
    }
    __syncthreads();
    if (thread < 32) {
      int count = 0;
      for (int first = 0; first < tap_count; first += 32) {
        const int tap = first + thread;
        const Shift* of_tap = shifts + tap * kOrder;
        bool starts = false;
        if (tap < tap_count && problem.lifting) {  // the first of the taps that the group exchanges
          starts = true;
          for (int g = 1; g < kOrder; ++g)
            starts &= of_tap[g].row > of_tap[0].row ||
                      (of_tap[g].row == of_tap[0].row && of_tap[g].column >= of_tap[0].column);
        } else if (tap < tap_count) {
          for (int g = 0; g < kOrder; ++g) starts |= of_tap[g].row != kOutside;
        }
        const unsigned starting = __ballot_sync(~0u, starts);
        if (starts) taps[count + __popc(starting & ((1u << thread) - 1))] = tap;
        count += __popc(starting);
      }
      if (thread == 0) place->orbits = count;
    }
    __syncthreads();
  }

  __device__ __forceinline__ void start_orbit(int bank) {
    const int copy_row = thread / Tile::vectors_of_row, out = thread % Tile::vectors_of_row * Tile::vector;
    const int all_orbits = problem.lifting ? place->orbits : problem.size * problem.size, tap = taps[orbit];
    const int64_t of_block = (int64_t{bank} * problem.blocks + place->block) * all_orbits;
    const int64_t index = of_block + (problem.lifting ? orbit : tap);
    filter_offset = place->first_field + out +
                    ((index * kOrder + copy_row % kOrder) * problem.in_fields + copy_row / kOrder) * problem.out_fields;
    orbit_shifts = shifts + tap * kOrder;
    x_offset = x_offsets[thread];
    field = 0;
  }

  __device__ __forceinline__ void advance(int bank) {
    buffer ^= 1;
    field += Tile::in_fields;
    if (field < problem.in_fields) {
      filter_offset += Tile::in_fields * problem.out_fields;
      x_offset += Tile::in_fields * problem.x_strides.field;
    } else if (++orbit < place->orbits) {
      start_orbit(bank);
    }
  }

  // X of the step as `map` has it; zeros outside.
  template <bool Vectors>
  __device__ __forceinline__ void load_map(T (&tile)[kOrder][Tile::load_fields], const T* map) const {
    constexpr int at_once = Vectors ? Tile::load_vector : 1;
    const int64_t step = load_step * problem.x_strides.field;
    const int left = problem.in_fields - field - load_field;
#pragma unroll
    for (int g = 0; g < kOrder; ++g) {
      const Shift shift = orbit_shifts[g];
      const bool inside = static_cast<unsigned>(row + shift.row) < static_cast<unsigned>(problem.rows.in) &&
                          static_cast<unsigned>(column + shift.column) < static_cast<unsigned>(problem.columns.in);
      const T* from = map + shift.offset;
#pragma unroll
      for (int i = 0; i < Tile::load_fields; i += at_once) {
#pragma unroll
        for (int j = 0; j < at_once; ++j) tile[g][i + j] = 0;
        if (inside && (Vectors ? i : i * load_step) < left)
          load_vector<at_once>(tile[g] + i, from + (Vectors ? i : i * step));
      }
    }
  }

  // X of the step. Where it is masked, its registers hold the mask first, which is zero outside.
  __device__ __forceinline__ void load_x(T (&tile)[kOrder][Tile::load_fields]) const {
    const T* map = (problem.x_activated ? problem.x_activated : problem.x) + x_offset;
    problem.x_vectors ? load_map<true>(tile, map) : load_map<false>(tile, map);
    if (!problem.x_activated) return;
#pragma unroll
    for (int g = 0; g < kOrder; ++g) {
      const T* from = problem.x + x_offset + orbit_shifts[g].offset;
#pragma unroll
      for (int i = 0; i < Tile::load_fields; ++i)
        tile[g][i] = tile[g][i] <= 0 ? T{0} : from[i * load_step * problem.x_strides.field];
    }
  }

  // X̂ of what was loaded.
  __device__ __forceinline__ void store_x(const T (&tile)[kOrder][Tile::load_fields], int bank) const {
    T* to = x_planes + buffer * Tile::x_buffer + load_field * Tile::x_row + load_pixel;
#pragma unroll
    for (int i = 0; i < Tile::load_fields; ++i) {
      T planes[kOrder];
#pragma unroll
      for (int g = 0; g < kOrder; ++g) planes[g] = tile[g][i];
      if (problem.relax_input)
#pragma unroll
        for (int g = 0; g < kOrder; ++g) planes[g] = product(planes[g], problem.relaxed_weight[bank * kOrder + g]);
      fourier<Group>(planes);
#pragma unroll
      for (int plane = 0; plane < kOrder; ++plane)
        to[i * load_step * Tile::x_row + plane * Tile::pixels] = planes[plane];
    }
  }

  // Ψ̂ of the step, on its way to shared memory.
  __device__ __forceinline__ void copy_filter() const {
    T* to = filter_planes + buffer * Tile::filter_buffer + thread * Tile::vector;
    const int copy_row = thread / Tile::vectors_of_row;
    const int left = problem.out_fields - place->first_field - thread % Tile::vectors_of_row * Tile::vector;
    constexpr int rows = Tile::in_fields * kOrder;
#pragma unroll
    for (int first = 0; first < rows; first += Tile::copy_rows) {
      if (rows % Tile::copy_rows && first + copy_row >= rows) break;
      const int k = (first + copy_row) / kOrder, fields = field + k < problem.in_fields ? left : 0;
      const T* from = problem.filter + filter_offset + int64_t{first / kOrder} * problem.out_fields;
      T* target = to + first * Tile::out_fields;
      if (problem.filter_vectors) {
        cp_async_16(target, from, fields > 0);
      } else {
        constexpr int words = sizeof(T) / 4;
#pragma unroll
        for (int i = 0; i < Tile::vector * words; ++i)
          cp_async_4(reinterpret_cast<uint32_t*>(target) + i, reinterpret_cast<const uint32_t*>(from) + i,
                     i / words < fields);
      }
    }
    cp_async_commit();
  }

  __device__ __forceinline__ int columns() const {
    return min(Tile::out_fields, problem.out_fields - place->first_field);
  }

  // The same of ψ in shared memory.
  __device__ __forceinline__ void transform_filter(int bank) const {
    const int* of_tap = positions + (orbit_shifts - shifts);
#pragma unroll 1
    for (int i = thread; i < Tile::in_fields * Tile::out_fields; i += Tile::threads) {
      const int k = i / Tile::out_fields, out = i % Tile::out_fields;
      T planes[kOrder] = {};
      if (field + k < problem.in_fields && out < columns())
        transform_weight<Group>(
            problem.weight.fetched(weight, bank, field + k, out, columns()), problem.lifting,
            [&](auto g) { return of_tap[g]; }, planes);
      T* to = filter_planes + buffer * Tile::filter_buffer + k * Tile::filter_row + out;
      for_each_index<kOrder>([&](auto plane) { to[plane * Tile::out_fields] = planes[plane]; });
    }
  }

  __device__ __forceinline__ void multiply(int buffer) {
    const T* xs = x_planes + buffer * Tile::x_buffer + pixel_group * Tile::vector;
    const T* filters = filter_planes + buffer * Tile::filter_buffer + field_group * Tile::thread_fields;
#pragma unroll 2  // so that the loop stays in the instruction cache
    for (int k = 0; k < Tile::in_fields; ++k) {
      T x[kOrder][Tile::thread_pixels], filter[kOrder][Tile::thread_fields];
#pragma unroll
      for (int plane = 0; plane < kOrder; ++plane) {
#pragma unroll
        for (int i = 0; i < Tile::thread_pixels; i += Tile::vector)
          load_vector<Tile::vector>(x[plane] + i, xs + k * Tile::x_row + plane * Tile::pixels + i * Tile::pixel_groups);
        load_vector<Tile::thread_fields>(filter[plane], filters + k * Tile::filter_row + plane * Tile::out_fields);
      }
      for_each_product<Group>([&](auto of_y, auto of_x, auto of_filter, auto negated) {
#pragma unroll
        for (int i = 0; i < Tile::thread_pixels; ++i)
#pragma unroll
          for (int j = 0; j < Tile::thread_fields; ++j)
            sums[of_y][i][j] += (negated ? -x[of_x][i] : x[of_x][i]) * filter[of_filter][j];
      });
    }
  }

  // All steps of a bank: while one is multiplied, x of the next is on its way to registers and Ψ̂ to shared memory.
  __device__ __forceinline__ void add_bank(int bank) {
    T tile[kOrder][Tile::load_fields];
    orbit = 0;
    if (place->orbits) start_orbit(bank);
#pragma unroll 1
    for (bool first = true;; first = false) {
      const bool more = orbit < place->orbits;
      if (more) {
        load_x(tile);
        problem.weight.numbers ? transform_filter(bank) : copy_filter();
      }
      if (!first) multiply(buffer ^ 1);
      if (!more) break;
      store_x(tile, bank);
      cp_async_wait<0>();
      // The others have then left the buffer that is filled next: they have multiplied it before they came here.
      __syncthreads();
      advance(bank);
    }
  }

  // What y gains from one bank of those that are weighed apart, or everything. Between banks y itself holds the sums.
  __device__ __forceinline__ void write(int bank) {
    constexpr auto scales = inverse_scales<Group>();
    const bool relax_output = problem.relaxed_weight && !problem.relax_input;
    const bool last = !relax_output || bank + 1 == problem.banks;
#pragma unroll
    for (int i = 0; i < Tile::thread_pixels; ++i)
#pragma unroll
      for (int j = 0; j < Tile::thread_fields; ++j) {
        T planes[kOrder];
        for_each_index<kOrder>([&](auto plane) { planes[plane] = sums[plane][i][j] * T(scales[plane]); });
        inverse_fourier<Group>(planes);
#pragma unroll
        for (int u = 0; u < kOrder; ++u) sums[u][i][j] = planes[u];
      }
#pragma unroll
    for (int u = 0; u < kOrder; ++u) {
      __syncthreads();
#pragma unroll
      for (int j = 0; j < Tile::thread_fields; ++j)
#pragma unroll
        for (int i = 0; i < Tile::thread_pixels; ++i)
          staged[(field_group * Tile::thread_fields + j) * Tile::y_row + i % Tile::vector +
                 (i / Tile::vector * Tile::pixel_groups + pixel_group) * Tile::vector] = sums[u][i][j];
      __syncthreads();
      for (int i = thread; i < Tile::pixels * Tile::out_fields; i += Tile::threads) {
        const int pixel = problem.y_by_fields ? i / Tile::out_fields : i % Tile::pixels;
        const int out = problem.y_by_fields ? i % Tile::out_fields : i / Tile::pixels;
        const int field_of_block = place->first_field + out;
        if (y_offsets[pixel] < 0 || field_of_block >= problem.out_fields) continue;
        const int64_t field = int64_t{place->block} * problem.out_fields + field_of_block;
        T* to = problem.y + y_offsets[pixel] + u * problem.y_strides.element + field * problem.y_strides.field;
        T number = staged[out * Tile::y_row + pixel];
        if (relax_output) {
          number *= problem.relaxed_weight[bank * kOrder + u];
          if (bank) number += *to;
        }
        if (last && problem.bias) number += problem.bias[field];
        if (last && problem.relu) number = number < 0 ? T{0} : number;
        *to = number;
      }
    }
    __syncthreads();
  }

  __device__ __forceinline__ void run() {
    if (!find_pixels()) return;
    __syncthreads();
    if (problem.weight.numbers) {
      problem.weight.fetch(place->block, place->first_field, columns(), weight);
      cp_async_wait<0>();
    }
    find_orbits();
    const bool relax_output = problem.relaxed_weight && !problem.relax_input;
    for (int bank = 0; bank < problem.banks; ++bank) {
      if (bank == 0 || relax_output) {
#pragma unroll
        for (int plane = 0; plane < kOrder; ++plane)
#pragma unroll
          for (int i = 0; i < Tile::thread_pixels; ++i)
#pragma unroll
            for (int j = 0; j < Tile::thread_fields; ++j) sums[plane][i][j] = 0;
      }
      add_bank(bank);
      if (relax_output || bank + 1 == problem.banks) write(bank);
    }
  }
};

}  // namespace gconv::cuda::simt
