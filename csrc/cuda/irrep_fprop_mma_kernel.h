// A warp makes MT · 16 pixels × NT · 8 output fields of all |P| elements. It reads the |P| shifted tiles of x straight
// into the registers of mma's A operand, goes through the butterflies there, and multiplies each plane by its plane of Ψ̂,
// which the warps of a block share through shared memory. The sums of every plane stay in registers, are transformed back
// there and written. Included by one file for each type, to be compiled at the same time.
#pragma once

#include <algorithm>

#include "irrep_fprop_mma.h"
#include "irrep_fprop_steps.h"
#include "irrep_fprop_tile.h"
#include "mma_pixels.h"
#include "tap_reads.h"

namespace gconv::cuda {
namespace {

// Plain: x and y lie so that a thread's neighbours are one vector, and x counts as it is. Any: whatever else there is,
// but for relaxed weights on the output, for which the sums are kept twice.
enum class Form { Plain, Any, RelaxedOutput };

constexpr int kWarps = 4, kThreads = 32 * kWarps, kStages = 4;

// [plane][field][out field], Width numbers at once, cut to `fields` and `columns`.
template <int Width, int Planes, int TileColumns, int Pitch, typename T>
__device__ __forceinline__ void copy_filter(const Problem<T>& p, const T* from, int fields, int columns, T* to) {
  constexpr int kFields = Operand<T>::kFields, kChunks = TileColumns / Width, kRows = kThreads / kChunks;
  const unsigned first = threadIdx.x / kChunks, column = threadIdx.x % kChunks * Width;
#pragma unroll
  for (unsigned i = 0; i < Planes * kFields; i += kRows) {
    const unsigned row = i + first, field = row % kFields;
    if (kRows > Planes * kFields && row >= Planes * kFields) break;
    const bool valid = static_cast<int>(field) < fields && static_cast<int>(column) < columns;
    const T* source = from + int64_t{static_cast<int>(row / kFields * p.in_fields + field)} * p.out_fields + column;
    T* target = to + (row - field + Operand<T>::place(field)) * Pitch + column;
    if constexpr (Width * sizeof(T) == 16)
      cp_async_16(target, source, valid);
    else if constexpr (Width * sizeof(T) == 4)
      cp_async_4(target, source, valid);
    else
      *target = valid ? *source : narrow<T>(0);
  }
}

template <typename T, typename Group, int MT, int NT, Form kForm>
struct Tile {
  static constexpr int order = Group::table.order, kFields = Operand<T>::kFields, kColumns = 8 * NT,
                       kPitch = 8 * (NT | 1);  // an odd number of units, against bank conflicts
  using Filter = T[order][kFields][kPitch];
  using X = uint32_t[order][MT][4];
  using Sums = float[order][MT][NT][4];
  using Walk = Steps<T, Group, kFields, false>;

  static constexpr int kPixels = kWarps * MT * 16;

  const Problem<T>& p;
  const Place& place;
  TapReads<T, Group, 2 * MT, std::conditional_t<kForm == Form::Plain, int, int64_t>, false> reads;

  __device__ Tile(const Problem<T>& p, const Place& place)
      : p(p), place(place), reads(p, place, lane_field(), [](int i) { return MmaPixels<T, MT>::index(i / 2, i % 2); }) {
  }

  __device__ void copy(const Walk& step, Filter& to) const {
    const int64_t planes = ((int64_t{step.bank} * p.groups + place.block) * p.orbits + step.orbit) * order;
    const T* from = p.transformed + (planes * p.in_fields + step.field) * p.out_fields + place.first_out;
    const int fields = p.in_fields - step.field, columns = p.out_fields - place.first_out;
    constexpr int kMost = 16 / sizeof(T), kWord = 4 / sizeof(T);
    if (p.filter_width == kMost)
      copy_filter<kMost, order, kColumns, kPitch>(p, from, fields, columns, &to[0][0][0]);
    else if (p.filter_width == kWord)
      copy_filter<kWord, order, kColumns, kPitch>(p, from, fields, columns, &to[0][0][0]);
    else if constexpr (kWord > 1)
      copy_filter<1, order, kColumns, kPitch>(p, from, fields, columns, &to[0][0][0]);
  }

  __device__ int columns() const { return min(kColumns, p.out_fields - place.first_out); }

  // The same of ψ in shared memory.
  __device__ void transform_filter(const Walk& step, const T* weight, Filter& to) const {
    int positions[order];
    for_each_index<order>([&](auto g) {
      constexpr Matrix matrix = Group::group.matrices[g];
      constexpr int inverse = Group::group.inverse[g];
      positions[g] =
          p.weight.pair.position(g, inverse, moved_tap(matrix, step.tap_number(), p.size), step.tap_number());
    });
    for (int i = threadIdx.x; i < kFields * kColumns; i += kThreads) {
      const int field = i / kColumns, in = step.field + field, column = i % kColumns;
      T planes[order] = {};
      if (in < p.in_fields && column < columns())
        transform_weight<Group>(
            p.weight.fetched(weight, step.bank, in, column, columns()), p.lifting, [&](auto g) { return positions[g]; },
            planes);
      for_each_index<order>([&](auto plane) { to[plane][Operand<T>::place(field)][column] = planes[plane]; });
    }
  }

  __device__ void load(const Walk& step, X& x) {
    if (step.is_first()) reads.find(p, place, step.tap);
    for_each_index<order>([&](auto g) {
      if constexpr (kForm == Form::Plain) {
        load<kNeighbours>(g, step, 0, x[g]);
      } else {
        load_any(g, step, 0, x[g]);
        if (p.masked) {
          uint32_t activated[MT][4];
          load_any(g, step, p.mask_offset, activated);
          MmaPixels<T, MT>::mask(activated, x[g]);
        }
        if (p.relax_input) scale(widen(p.relaxed_weight[int64_t{step.bank} * order + g]), x[g]);
        __syncwarp();  // so that the loads of all planes at once do not take all registers
      }
    });
  }

  __device__ void multiply(const X& x, const Filter& filter, Sums& sums) const {
    uint32_t b[order][NT][2];
    for_each_product<Group>([&](auto y, auto from, auto w, auto negated) {
      if constexpr (is_first_of_filter({y, from, w, negated})) load_filter(filter[w], b[w]);
#pragma unroll
      for (int m = 0; m < MT; ++m) {
        uint32_t a[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) a[i] = x[from][m][i] ^ (negated ? Operand<T>::kSigns : 0);
#pragma unroll
        for (int n = 0; n < NT; ++n) Operand<T>::multiply(sums[y][m][n], a, b[w][n]);
      }
    });
  }

  __device__ static void store(const Problem<T>& p, const Place& place, const Sums& y) {
    store_tile<T, order, MT, NT, kForm == Form::Plain>(p, place, y);
  }

 private:
  static constexpr int kNeighbours = Operand<T>::kNeighbours;
  __device__ static int lane_field() { return static_cast<int>(threadIdx.x % 4) * kNeighbours; }

  // Of one element, at `beside` from x.
  template <int Width>
  __device__ __forceinline__ void load(int g, const Walk& step, int64_t beside, uint32_t (&x)[MT][4]) const {
    const auto offset = reads.offset[g] + (kForm == Form::Plain ? step.field : step.field * p.x_strides.field + beside);
    const int fields = p.in_fields - step.field - lane_field();
#pragma unroll
    for (int i = 0; i < 2 * MT; ++i)
      load_neighbours<Width>(reads.from[i], offset, p.x_strides.field, reads.counts(g, i) ? fields : 0, x[i / 2][i % 2],
                             x[i / 2][i % 2 + 2]);
  }
  __device__ __forceinline__ void load_any(int g, const Walk& step, int64_t beside, uint32_t (&x)[MT][4]) const {
    if (p.x_width == kNeighbours)
      load<kNeighbours>(g, step, beside, x);
    else if (kNeighbours > 2 && p.x_width == 2)
      load<2>(g, step, beside, x);
    else
      load<1>(g, step, beside, x);
  }

  // Whether no product before has the same plane of Ψ̂.
  static constexpr bool is_first_of_filter(Product product) {
    for (const Product& term : products<Group>())
      if (term.w == product.w) return term.y == product.y && term.x == product.x;
    return false;
  }

  __device__ static void load_filter(const T (&plane)[kFields][kPitch], uint32_t (&b)[NT][2]) {
    const int lane = threadIdx.x % 32;
    if constexpr (sizeof(T) == 4) {
#pragma unroll
      for (int i = 0; i < 2 * NT; ++i) b[i / 2][i % 2] = tf32(plane[i % 2 * 4 + lane % 4][i / 2 * 8 + lane / 4]);
    } else if constexpr (NT == 1) {
      ldmatrix_x2_trans(b[0], plane[lane % 16]);
    } else {
#pragma unroll
      for (int pair = 0; pair < NT / 2; ++pair) {
        uint32_t both[4];
        ldmatrix_x4_trans(both, plane[lane % 16] + (2 * pair + lane / 16) * 8);
#pragma unroll
        for (int i = 0; i < 4; ++i) b[2 * pair + i / 2][i % 2] = both[i];
      }
    }
  }

  __device__ static void scale(float w, uint32_t (&x)[MT][4]) {
#pragma unroll
    for (int i = 0; i < 4 * MT; ++i)
      x[i / 4][i % 4] = for_each_number<T>([w](float value) { return product(w, value); }, x[i / 4][i % 4]);
  }
};

// Of a multiprocessor at once; a third where the registers suffice.
template <typename T, typename Group, int NT>
constexpr int kBlocks = Group::table.order <= 2 && Group::table.order * NT * sizeof(T) <= 16 ? 3 : 2;

template <typename T, typename Group, int MT, int NT, Form kForm>
__global__ void __launch_bounds__(kThreads, kBlocks<T, Group, NT>)
    irrep_fprop_mma_kernel(const __grid_constant__ Problem<T> p) {
  using Tile = Tile<T, Group, MT, NT, kForm>;
  DYN_SHARED(shared);
  auto* filter = reinterpret_cast<typename Tile::Filter*>(shared);  // of each stage
  T* weight = reinterpret_cast<T*>(filter + kStages);               // where the block transforms it itself

  const Place place(p, blockIdx.x, Tile::kPixels, Tile::kColumns);
  if (place.first_image >= p.batch) return;

  Tile tile(p, place);
  if (p.weight.numbers) {
    p.weight.fetch(place.block, place.first_out, tile.columns(), weight);
    cp_async_wait<0>();
    __syncthreads();
  }
  typename Tile::Sums sums = {}, total = {};
  typename Tile::X x = {};
  typename Tile::Walk copied(p, place), read(p, place);
  for (int step = 1 - kStages;; ++step) {
    if (step >= 0) {
      const int bank = read.bank;
      const bool more = read.next();
      if (kForm == Form::RelaxedOutput && step > 0 && read.bank != bank) {
        transform_back<Group>(sums);
#pragma unroll
        for (int u = 0; u < Tile::order; ++u) {
          const float w = widen(p.relaxed_weight[int64_t{bank} * Tile::order + u]);
#pragma unroll
          for (int i = 0; i < 4 * MT * NT; ++i) {
            float& sum = sums[u][i / 4 / NT][i / 4 % NT][i % 4];
            total[u][i / 4 / NT][i / 4 % NT][i % 4] += w * sum;
            sum = 0;
          }
        }
      }
      if (!more) break;
      tile.load(read, x);
      cp_async_wait<kStages - 2>();
      __syncthreads();  // this step's filter has come for all, and all are through with that of the step before
    }
    if (copied.next()) {
      auto& to = filter[(step + kStages - 1) % kStages];
      p.weight.numbers ? tile.transform_filter(copied, weight, to) : tile.copy(copied, to);
    }
    cp_async_commit();
    if (step < 0) continue;
    transform_tiles<T, Group>(x);
    tile.multiply(x, filter[step % kStages], sums);
  }
  // Found again, so that no registers hold it through the loop.
  const Place end(p, block_index(), Tile::kPixels, Tile::kColumns);
  if constexpr (kForm == Form::RelaxedOutput) {
    Tile::store(p, end, total);
  } else {
    transform_back<Group>(sums);
    Tile::store(p, end, sums);
  }
}

template <typename T, typename Group, int MT, int NT, Form kForm>
cudaError_t launch_tiles(Problem<T> p, cudaStream_t stream) {
  using Tile = Tile<T, Group, MT, NT, kForm>;
  const unsigned blocks = count_blocks(p, Tile::kPixels, Tile::kColumns);
  if (!blocks) return cudaErrorNotSupported;
  constexpr int kFilterBytes = kStages * sizeof(typename Tile::Filter);
  static_assert(kFilterBytes <= kUnaskedSharedBytes && kFilterBytes + kMostWeightBytes <= kMostSharedBytes);
  const auto kernel = irrep_fprop_mma_kernel<T, Group, MT, NT, kForm>;
  const int shared_bytes = kFilterBytes + static_cast<int>(p.weight.shared_bytes(Tile::kColumns));
  if (shared_bytes > kUnaskedSharedBytes)
    if (const cudaError_t error =
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes))
      return error;
  LAUNCH(kernel, blocks, kThreads, shared_bytes, stream, p);
  return cudaGetLastError();
}

// Tiles as large as the registers hold, and no larger than the layer.
template <typename T, typename Group>
cudaError_t launch(const Problem<T>& p, cudaStream_t stream) {
  constexpr int order = Group::table.order, kRows = order == 8 ? 1 : 2;
  // Of four, these would spill registers.
  constexpr int kMost = std::is_same_v<Group, GroupD2> || (order >= 4 && sizeof(T) == 4) ? 2 : 4;
  if (p.relaxed_weight && !p.relax_input) return launch_tiles<T, Group, kRows, 1, Form::RelaxedOutput>(p, stream);
  const bool plain = p.plain;
  if constexpr (order >= 4) {
    if (!plain && p.out_fields <= 8) return launch_tiles<T, Group, kRows, 1, Form::Any>(p, stream);
    if (plain && 8 < p.out_fields && p.out_fields <= 16)
      return launch_tiles<T, Group, kRows, 2, Form::Plain>(p, stream);
  }
  if (!plain) return launch_tiles<T, Group, kRows, 2, Form::Any>(p, stream);
  if (p.out_fields <= 8) return launch_tiles<T, Group, 2, 1, Form::Plain>(p, stream);
  return launch_tiles<T, Group, kRows, kMost, Form::Plain>(p, stream);
}

}  // namespace

template <typename T>
cudaError_t irrep_fprop_mma(const IrrepFpropParams& params, const void* transformed, cudaStream_t stream) {
  if (!coordinates_fit(params.shape)) return cudaErrorNotSupported;
  const Problem<T> p(params, transformed);
  return with_group(params.shape.group->name, [&](auto group) { return launch<T, decltype(group)>(p, stream); });
}

}  // namespace gconv::cuda
