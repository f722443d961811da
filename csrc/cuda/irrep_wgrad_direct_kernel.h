// The kernel of irrep_wgrad for maps of 16-bit types whose fields lie together: a thread reads of x what it has of mma's A
// operands, rows of which are fields, and transforms it there, so that X̂ is nowhere but in registers. ŷ is in shared
// memory, as B. In shared memory X̂ would have to be written, and read again for each product, which takes longer than
// the products. Two blocks of threads share a multiprocessor: one multiplies while the other reads.
//
// A Product is:
//
//   kCompiled                    whether this pass of the compiler has its instructions
//   kTiles, kColumns             16-row tiles of in fields, and out fields, of a warp's job
//   kReadsAhead                  whether registers are left to read dy while it multiplies
//   add(sums, x, y)              the products of one step
//   store(to, chunk), publish()  a chunk of ŷ; then, that those of this thread are there for the products of others
//                                after a barrier
#pragma once

#include <algorithm>

#include "irrep_groups.h"
#include "irrep_wgrad_direct.h"
#include "irrep_wgrad_map.h"
#include "irrep_wgrad_problem.h"
#include "operand_transform.h"
#include "warpgroup_matrix.h"

namespace gconv::cuda {
namespace {

constexpr int kThreads = 32 * kDirectWarps, kStep = wgrad_step_pixels(2), kStage = kStepsPerStage * kStep;
constexpr int kRecords = 4;            // stages whose pixels are found
constexpr uint32_t kNever = 1u << 31;  // outside of every map
constexpr int kColumnBits = 16;        // up to there, the rows of taps
static_assert(kMostDirectSize < kColumnBits && kColumnBits + kMostDirectSize < 32);

// Planes of ŷ in one step: rows are pixels, swizzled.
template <typename T, int Order, int Columns>
using YStep = T[Order][kStep][Columns];

// Where the inner dimension has a pixel of the step: a thread of A has four of it, lane % 4 + 0, 4, 8 and 12, so that
// neighbouring threads read neighbouring pixels.
__device__ constexpr int inner_row(int pixel) { return pixel % 4 * 2 + pixel / 4 % 2 + pixel / 8 * 8; }

// What the pixels of y in one stage read.
template <typename T>
struct PixelRecords {
  struct alignas(16) X {
    const T* from;     // field 0 of the block, element 0, tap (0, 0)
    uint32_t outside;  // bit i: of row i of the taps, kColumnBits + i: of column i, kNever: of all
  };
  X x[kStage];
  int64_t dy[kStage];  // offset of field 0 of the block, element 0; -1: no pixel

  __device__ void find(const WgradProblem<T>& p, const SharePixels& share, int block, int stage) {
    const int i = threadIdx.x % 32, index = stage * kStage + i;
    static_assert(kStage == 32);
    const Pixel pixel = share.pixel(p, index);
    const int row = pixel.row * p.x.row_stride - p.x.row_padding;
    const int column = pixel.column * p.x.column_stride - p.x.column_padding;
    uint32_t outside = kNever;
    for (int tap = 0; tap < p.size; ++tap) {
      if (static_cast<unsigned>(row + tap * p.row_dilation) >= static_cast<unsigned>(p.x.rows)) outside |= 1u << tap;
      if (static_cast<unsigned>(column + tap * p.column_dilation) >= static_cast<unsigned>(p.x.columns))
        outside |= 1u << (kColumnBits + tap);
    }
    const auto offset = [&](const Map<T>& map, int row, int column) {
      return pixel.image * map.strides.batch + row * map.strides.row + column * map.strides.column +
             int64_t{block} * map.fields * map.strides.field;
    };
    const bool inside = index < share.count;
    x[i] = {p.x.data + offset(p.x, row, column), inside ? outside : ~0u};
    dy[i] = inside ? offset(p.dy, pixel.row, pixel.column) : -1;
  }
};

// What a thread reads of x for its job: 2 · Tiles neighbouring fields of four pixels a step.
template <typename T, typename Group, int Tiles>
struct XReader {
  static constexpr int order = Group::table.order;
  using Words = uint32_t[order][4][Tiles];
  using X = uint32_t[order][Tiles][4];

  int shift[order];       // from a pixel's `from`
  uint32_t taken[order];  // bits of `outside` of which none may be set

  // Of the tile's in fields, the first of the lane's.
  __device__ static int first_field() { return static_cast<int>(threadIdx.x % 32 / 4) * 2 * Tiles; }

  __device__ XReader(const WgradProblem<T>& p, const WgradPart& part, int tap) {
    const int field = part.in_first + first_field();
    const bool any = part.active && field < p.x.fields;
    for_each_index<order>([&](auto g) {
      constexpr Matrix matrix = Group::group.matrices[g];
      const int moved = moved_tap(matrix, tap, p.size), row = moved / p.size, column = moved % p.size;
      shift[g] = static_cast<int>((p.lifting ? 0 : g * p.x.strides.element) + row * p.row_dilation * p.x.strides.row +
                                  column * p.column_dilation * p.x.strides.column + field);
      taken[g] = any ? 1u << row | 1u << (kColumnBits + column) : kNever;
    });
  }

  // pixels: of the step.
  __device__ __forceinline__ void load(const typename PixelRecords<T>::X* pixels, Words& words) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const auto pixel = pixels[4 * i + threadIdx.x % 4];
#pragma unroll
      for (int g = 0; g < order; ++g) {
#pragma unroll
        for (uint32_t& word : words[g][i]) word = 0;
        if (!(pixel.outside & taken[g])) read(pixel.from + shift[g], words[g][i]);
      }
    }
  }

  // A word has two fields of a pixel, a register of A two pixels of a field.
  __device__ __forceinline__ static void arrange(const Words& words, X& x) {
#pragma unroll
    for (int g = 0; g < order; ++g)
#pragma unroll
      for (int i = 0; i < 2 * Tiles; ++i) {
        const uint32_t first = words[g][i % 2 * 2][i / 2], second = words[g][i % 2 * 2 + 1][i / 2];
        x[g][i / 2][i % 2 * 2] = __byte_perm(first, second, 0x5410);
        x[g][i / 2][i % 2 * 2 + 1] = __byte_perm(first, second, 0x7632);
      }
  }

 private:
  __device__ static void read(const T* numbers, uint32_t (&words)[1]) {
    words[0] = __ldg(reinterpret_cast<const uint32_t*>(numbers));
  }
  __device__ static void read(const T* numbers, uint32_t (&words)[2]) {
    const uint2 both = __ldg(reinterpret_cast<const uint2*>(numbers));
    words[0] = both.x, words[1] = both.y;
  }
};

// What a thread reads of dy for a stage: chunks of eight fields, which become rows of ŷ. Where a stage has fewer chunks than
// a block has threads, these take turns.
template <typename T, typename Group, typename Product>
struct YReader {
  static constexpr int order = Group::table.order, kChunks = Product::kColumns / 8;
  static constexpr int kItems = kStage * kChunks, kReads = std::max(1, kItems / kThreads),
                       kTurns = kThreads * kReads / kItems;
  static_assert(kTurns * kItems == kReads * kThreads);
  using Rows = SwizzledRows<Product::kColumns>;
  using Y = YStep<T, order, Product::kColumns>;

  uint4 chunks[kReads][order];

  __device__ static bool has_turn(int stage) {
    return kTurns == 1 || static_cast<int>(threadIdx.x / (kThreads / kTurns)) == stage % kTurns;
  }

  // pixels: offsets of the stage's in dy.
  __device__ __forceinline__ void load(const WgradProblem<T>& p, const int64_t* pixels, int out_first) {
#pragma unroll
    for (int i = 0; i < kReads; ++i) {
      const int64_t at = pixels[pixel(i)];
      const int field = out_first + chunk(i) * 8;
      const T* from = p.dy.data + at + field;
      const bool any = at >= 0 && field < p.dy.fields;
#pragma unroll
      for (int g = 0; g < order; ++g, from += p.dy.strides.element)
        chunks[i][g] = any ? __ldg(reinterpret_cast<const uint4*>(from)) : uint4{};
    }
  }
  __device__ __forceinline__ void mask(const WgradProblem<T>& p, const int64_t* pixels, int out_first) {
#pragma unroll
    for (int i = 0; i < kReads; ++i) {
      const int64_t at = pixels[pixel(i)];
      const int field = out_first + chunk(i) * 8;
      if (at < 0 || field >= p.dy.fields) continue;
#pragma unroll
      for (int g = 0; g < order; ++g) {
        const T* from = p.dy.activated + at + field + g * p.dy.strides.element;
        chunks[i][g] = masked<T>(chunks[i][g], *reinterpret_cast<const uint4*>(from));
      }
    }
  }
  __device__ __forceinline__ void store(const T* scale, Y* steps) {
#pragma unroll
    for (int i = 0; i < kReads; ++i) {
      transform<T, Group, false>(chunks[i], scale);
      const int to = pixel(i);
#pragma unroll
      for (int g = 0; g < order; ++g)
        Product::store(&steps[to / kStep][g][0][0] + Rows::place(inner_row(to % kStep), chunk(i)), chunks[i][g]);
    }
    Product::publish();
  }

 private:
  __device__ static int item(int i) {
    return static_cast<int>(kTurns == 1 ? threadIdx.x : threadIdx.x % (kThreads / kTurns)) + i * kThreads;
  }
  __device__ static int pixel(int i) { return item(i) / kChunks; }
  __device__ static int chunk(int i) { return item(i) % kChunks; }
};

template <typename T, typename Group, typename Product>
__device__ __forceinline__ void multiply_share(const WgradProblem<T>& p) {
  constexpr int order = Group::table.order, kTiles = Product::kTiles, kUnits = Product::kColumns / 8;
  using Reader = XReader<T, Group, kTiles>;
  using Y = YStep<T, order, Product::kColumns>;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;

  __shared__ WgradPart parts[kDirectWarps];  // because registers are scarce
  __shared__ PixelRecords<T> records[kRecords];
  DYN_SHARED(shared);
  auto* const y_stages = reinterpret_cast<Y(*)[kStepsPerStage]>(shared);  // two of them
  if (lane == 0) parts[warp] = wgrad_part(p, blockIdx.x, kDirectWarps, warp, 16 * kTiles, Product::kColumns);
  __syncthreads();
  const WgradPart& part = parts[warp];
  const auto tap_of = [&](const WgradPart& part) {
    return first_tap(p.matrices, order, p.size, p.lifting, part.orbit);
  };
  __shared__ SharePixels share;
  if (threadIdx.x == 0) share = share_pixels(p, part.share);
  __syncthreads();
  const int stages = (share.count + kStage - 1) / kStage;
  const auto find = [&](int stage) {  // each time another warp
    if (stage < stages && warp == stage % kDirectWarps) records[stage % kRecords].find(p, share, part.block, stage);
  };
  const Reader reader(p, part, tap_of(part));
  typename Reader::Words words;
  typename Reader::X x;
  const auto read_x = [&](int stage, int step) { reader.load(records[stage % kRecords].x + step * kStep, words); };
  YReader<T, Group, Product> dy;
  const auto read_y = [&](int stage) {
    if (dy.has_turn(stage)) dy.load(p, records[stage % kRecords].dy, part.out_first);
  };
  const auto store_y = [&](int stage) {
    if (!dy.has_turn(stage)) return;
    if (p.dy.activated) dy.mask(p, records[stage % kRecords].dy, part.out_first);
    dy.store(wgrad_scale(p, part.bank, order, false), y_stages[stage % 2]);
  };
  constexpr bool kReadsAhead = Product::kReadsAhead;

#pragma unroll 1
  for (int stage = 0; stage < kRecords - 1; ++stage) find(stage);
  __syncthreads();
  if (stages) {
    read_y(0);
    store_y(0);
    if (kReadsAhead && stages > 1) read_y(1);
    read_x(0, 0);
  }
  __syncthreads();

  float sums[order][kTiles][kUnits][4] = {};
#pragma unroll 1
  for (int stage = 0; stage < stages; ++stage) {
    const bool more = stage + 1 < stages;
#pragma unroll
    for (int step = 0; step < kStepsPerStage; ++step) {
      Reader::arrange(words, x);
      if (const T* const scales = wgrad_scale(p, part.bank, order, true)) {
#pragma unroll
        for (int g = 0; g < order; ++g) scale<T>(widen(scales[g]), x[g]);
      }
      transform_tiles<T, Group>(x);
      if (step == 0) {
        if (!kReadsAhead && more) read_y(stage + 1);
        if (more) store_y(stage + 1);
        find(stage + kRecords - 1);
        read_x(stage, 1);
      } else if (more) {
        read_x(stage + 1, 0);
        if (kReadsAhead && stage + 2 < stages) read_y(stage + 2);
      }
      Product::add(sums, x, y_stages[stage % 2][step]);
    }
    __syncthreads();
  }

  if (!part.active) return;
  const int tap = tap_of(part);  // found again, so that no register holds it through the loop
#pragma unroll
  for (int i = 0; i < kTiles * kUnits * 2; ++i) {
    const int tile = i / 2 / kUnits, unit = i / 2 % kUnits;
    float f[2][order];
#pragma unroll
    for (int plane = 0; plane < order; ++plane)
#pragma unroll
      for (int half = 0; half < 2; ++half) f[half][plane] = sums[plane][tile][unit][2 * half + i % 2];
    store_gradients<Group>(p, part, tap, part.in_first + Reader::first_field() + 2 * tile,
                           part.out_first + unit * 8 + lane % 4 * 2 + i % 2, f);
  }
}

template <typename T, typename Group, typename Product>
__global__ void __launch_bounds__(kThreads, 2) irrep_wgrad_direct_kernel(const __grid_constant__ WgradProblem<T> p) {
  if constexpr (Product::kCompiled)
    multiply_share<T, Group, Product>(p);
  else
    __trap();
}

template <typename T, typename Group, typename Product>
cudaError_t launch_irrep_wgrad_direct(const IrrepWgradParams& params, const WgradPlan& plan, cudaStream_t stream) {
  static_assert(Group::table.order * Product::kTiles * Product::kColumns / 2 <= 128);  // registers of sums
  static_assert(Group::table.order < 8 || !Product::kReadsAhead);  // nor are there registers for 8 elements
  constexpr int kBytes = 2 * kStepsPerStage * sizeof(YStep<T, Group::table.order, Product::kColumns>);
  static_assert(kBytes + kRecords * sizeof(PixelRecords<T>) + 1024 <= kUnaskedSharedBytes);
  const int64_t blocks = wgrad_blocks(params, plan);
  if (blocks > INT32_MAX) return cudaErrorInvalidValue;
  LAUNCH((irrep_wgrad_direct_kernel<T, Group, Product>), static_cast<unsigned>(blocks), kThreads, kBytes, stream,
         WgradProblem<T>(params, plan));
  return cudaGetLastError();
}

// Product<T, Group, tiles, columns>; Narrow: whether there is one of 16 columns.
template <typename T, template <typename, typename, int, int> typename Product, bool Narrow>
cudaError_t launch_tiles(const IrrepWgradParams& params, const WgradPlan& plan, cudaStream_t stream) {
  if (params.shape.group->name == "C4")
    return plan.out_columns == 64
               ? launch_irrep_wgrad_direct<T, GroupC4, Product<T, GroupC4, 1, 64>>(params, plan, stream)
               : launch_irrep_wgrad_direct<T, GroupC4, Product<T, GroupC4, 2, 32>>(params, plan, stream);
  if (plan.out_columns == 32)
    return launch_irrep_wgrad_direct<T, GroupD4, Product<T, GroupD4, 1, 32>>(params, plan, stream);
  if constexpr (Narrow) return launch_irrep_wgrad_direct<T, GroupD4, Product<T, GroupD4, 1, 16>>(params, plan, stream);
  return cudaErrorNotSupported;
}

}  // namespace
}  // namespace gconv::cuda
