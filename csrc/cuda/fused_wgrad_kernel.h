// The kernel of fused_wgrad. For an orbit of taps {g·s} it forms the products of all elements of x and y,
//
//   G[v, c; u, o] = Σ_pixels x[c, v, … + v·s] · dy[o, u, …]      dψ[l, o, c, w, w·s] = Σ_u w_l · G[u·w, c; u, o]
//
// one matrix product whose rows are (v, c), whose columns are (u, o) and whose inner dimension is the pixels. Of an
// image x has no v, but is read at as many taps. A block has four warps, each a quarter of the tile.
#pragma once

#include <algorithm>

#include "fused_wgrad_plan.h"
#include "map_chunks.h"
#include "wgrad_products.h"
#include "wgrad_shares.h"

namespace gconv::cuda {
namespace {

template <typename T>
struct Problem {
  Problem(const FusedWgradParams& params, const FusedWgradPlan& plan)
      : x(params.x, nullptr, params.x_strides, params.shape.in_fields, params.shape.rows, params.shape.columns),
        dy(params.dy, params.dy_activated, params.dy_strides, params.shape.out_fields, of_y(params.shape.rows),
           of_y(params.shape.columns)),
        y_columns(std::max<int64_t>(1, params.shape.columns.out)),
        y_pixels(std::max<int64_t>(1, params.shape.rows.out * params.shape.columns.out)), group(*params.shape.group),
        size(params.shape.size), lifting(params.shape.lifting),
        row_dilation(static_cast<int>(params.shape.rows.dilation)),
        column_dilation(static_cast<int>(params.shape.columns.dilation)), orbits(plan.orbits), in_tiles(plan.in_tiles),
        out_tiles(plan.out_tiles), blocks(static_cast<int>(params.shape.groups)), banks(static_cast<int>(params.banks)),
        pixels(plan.pixels), share_pixels(plan.share_pixels),
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
  PointGroup group;
  int size;
  bool lifting;
  int row_dilation, column_dilation;
  int orbits, in_tiles, out_tiles, blocks, banks;
  int64_t pixels, share_pixels;
  const T* relaxed_weight;
  bool relax_input;
  T* grad_weight;
  accumulate_t<T>* shares;  // as wgrad_shares.h has them; or nullptr
};

// Product: of one warp, half the rows × half the columns.
template <typename T, typename Product>
struct Tile {
  static constexpr int kRows = 2 * Product::kIn, kColumns = 2 * Product::kOut, kStage = wgrad_stage_pixels(sizeof(T));
  static constexpr int kStep = wgrad_step_pixels(sizeof(T));
  static constexpr int kBuffer = kStage * (Product::kInPitch + Product::kOutPitch);
  static constexpr int kSumsPitch = kColumns + 1;
  static constexpr int kSharedBytes =
      std::max<int>(2 * kBuffer * sizeof(T), kRows * kSumsPitch * sizeof(accumulate_t<T>));
};

// What a thread reads of a stage: chunks of fields of one map, which lie in its tile as [pixel][element][field].
template <typename T, int Fields, int Pitch, bool Maskable, bool Tf32>
struct Reader {
  static constexpr int kStage = wgrad_stage_pixels(sizeof(T)), kChunks = Fields / kChunk<T>;
  static constexpr int kReads = kStage * kChunks / kWgradThreads;
  static_assert(kReads * kWgradThreads == kStage * kChunks);

  uint4 read[kReads];

  // Neighbouring threads take what lies side by side in memory.
  __device__ static int pixel(const Map<T>& map, int i) {
    const int item = threadIdx.x + i * kWgradThreads;
    return map.in_rows ? item % kStage : item / kChunks;
  }
  __device__ static int field(const Map<T>& map, int i) {
    const int item = threadIdx.x + i * kWgradThreads;
    return (map.in_rows ? item / kStage : item % kChunks) * kChunk<T>;
  }

  // pixel_at(i): of the stage, and whether there is one. element_fields: of the tile, for each element.
  template <typename PixelAt>
  __device__ __forceinline__ void load(const Map<T>& map, const Shift* shifts, int first_field, int element_fields,
                                       PixelAt pixel_at) {
#pragma unroll
    for (int i = 0; i < kReads; ++i) {
      bool inside;
      const Pixel at = pixel_at(pixel(map, i), inside);
      const int row = field(map, i);
      read[i] = read_chunk<Maskable>(map, shifts[row / element_fields], inside, at, first_field + row % element_fields);
    }
  }
  __device__ __forceinline__ void store(const Map<T>& map, T* tile) const {
#pragma unroll
    for (int i = 0; i < kReads; ++i) {
      uint4 chunk = read[i];
      if constexpr (Tf32)
        for (unsigned* word : {&chunk.x, &chunk.y, &chunk.z, &chunk.w}) *word = tf32(__uint_as_float(*word));
      *reinterpret_cast<uint4*>(tile + pixel(map, i) * Pitch + field(map, i)) = chunk;
    }
  }
};

template <typename T, typename Product>
__global__ void __launch_bounds__(kWgradThreads) fused_wgrad_kernel(const __grid_constant__ Problem<T> p) {
  using Tile = Tile<T, Product>;
  using Sum = accumulate_t<T>;
  const int order = p.group.order, warp = threadIdx.x / 32;
  const int in_fields = Tile::kRows / order, out_fields = Tile::kColumns / order;  // of the tile

  int64_t index = blockIdx.x;
  const auto next = [&](int count) {
    const int digit = static_cast<int>(index % count);
    index /= count;
    return digit;
  };
  const int orbit = next(p.orbits), out_first = next(p.out_tiles) * out_fields, in_first = next(p.in_tiles) * in_fields;
  const int block = next(p.blocks), share = static_cast<int>(index);
  const int first = first_tap(p.group.matrices, order, p.size, p.lifting, orbit);

  DYN_SHARED(shared);
  T* const tiles = reinterpret_cast<T*>(shared);  // [2], of x, then of dy
  alignas(16) __shared__ Shift x_shifts[kMaxOrder];
  alignas(16) __shared__ Shift y_shifts[kMaxOrder];
  const int g = threadIdx.x;
  if (g < order) {
    const int tap = moved_tap(p.group.matrices[g], first, p.size);
    const int row = tap / p.size * p.row_dilation, column = tap % p.size * p.column_dilation;
    const MapStrides& strides = p.x.strides;
    const int64_t plane = block * p.x.fields * strides.field + (p.lifting ? 0 : g * strides.element);
    x_shifts[g] = {plane + row * strides.row + column * strides.column, row, column};
    y_shifts[g] = {block * p.dy.fields * p.dy.strides.field + g * p.dy.strides.element, 0, 0};
  }
  __syncthreads();

  const int64_t first_pixel = share * p.share_pixels;
  const int first_image = static_cast<int>(first_pixel / p.y_pixels.value);
  const int in_first_image = static_cast<int>(first_pixel % p.y_pixels.value);
  const int pixels = static_cast<int>(min(p.share_pixels, p.pixels - first_pixel));
  const int stages = (pixels + Tile::kStage - 1) / Tile::kStage;

  Reader<T, Tile::kRows, Product::kInPitch, false, Product::kTf32> x;
  Reader<T, Tile::kColumns, Product::kOutPitch, true, Product::kTf32> dy;
  const auto load = [&](int stage) {
    const auto pixel_at = [&](int in_stage, bool& inside) {
      const int of_share = stage * Tile::kStage + in_stage, at = in_first_image + of_share;
      const int image = p.y_pixels.quotient(at), in_image = at - image * p.y_pixels.value;
      const int row = p.y_columns.quotient(in_image);
      inside = of_share < pixels;
      return Pixel{first_image + image, row, in_image - row * p.y_columns.value};
    };
    x.load(p.x, x_shifts, in_first, in_fields, pixel_at);
    dy.load(p.dy, y_shifts, out_first, out_fields, pixel_at);
  };
  const auto x_tile = [&](int stage) { return tiles + stage % 2 * Tile::kBuffer; };
  const auto y_tile = [&](int stage) { return x_tile(stage) + Tile::kStage * Product::kInPitch; };
  const int row = warp % 2 * Product::kIn, column = warp / 2 * Product::kOut;  // of the warp

  typename Product::Sums sums = {};
  // Stage -1 reads and multiplies nothing.
#pragma unroll 1
  for (int stage = -1; stage < stages; ++stage) {
    const bool more = stage + 1 < stages;
    if (more) load(stage + 1);
    if (stage >= 0) {
#pragma unroll
      for (int pixel = 0; pixel < Tile::kStage; pixel += Tile::kStep) {
        typename Product::Y y;
        Product::read(y, y_tile(stage) + pixel * Product::kOutPitch + column);
        Product::template add<false>(sums, y, x_tile(stage) + pixel * Product::kInPitch + row);
      }
    }
    if (more) {
      x.store(p.x, x_tile(stage + 1));
      dy.store(p.dy, y_tile(stage + 1));
    }
    __syncthreads();
  }

  Sum* const products = reinterpret_cast<Sum*>(shared);  // G, in the place of the tiles
#pragma unroll
  for (int i = 0; i < Product::kIn * Product::kOut / 32; ++i)
    products[(row + Product::in_field(i)) * Tile::kSumsPitch + column + Product::out_field(i)] = sums[i];
  __syncthreads();
  const int taps = p.size * p.size;
  const int64_t pairs = int64_t{p.blocks} * p.dy.fields * p.x.fields;
  for (int i = threadIdx.x; i < order * in_fields * out_fields; i += kWgradThreads) {
    const int in = i % in_fields, out = i / in_fields % out_fields, w = i / in_fields / out_fields;
    if (in_first + in >= p.x.fields || out_first + out >= p.dy.fields) continue;
    const int64_t pair = (int64_t{block} * p.dy.fields + out_first + out) * p.x.fields + in_first + in;
    for (int bank = 0; bank < p.banks; ++bank) {
      Sum sum = 0;
      for (int u = 0; u < order; ++u) {
        const int v = p.group.product[u][w];
        const Sum product = products[(v * in_fields + in) * Tile::kSumsPitch + u * out_fields + out];
        sum += p.relaxed_weight ? widen(p.relaxed_weight[bank * order + (p.relax_input ? v : u)]) * product : product;
      }
      if (p.shares)
        p.shares[(((int64_t{share} * p.banks + bank) * p.orbits + orbit) * order + w) * pairs + pair] = sum;
      else
        p.grad_weight[((bank * pairs + pair) * order + w) * taps + moved_tap(p.group.matrices[w], first, p.size)] =
            narrow<T>(sum);
    }
  }
}

template <typename T, typename Product>
cudaError_t launch_fused_wgrad(const FusedWgradParams& params, const FusedWgradPlan& plan, cudaStream_t stream) {
  const int64_t blocks = int64_t{plan.orbits} * plan.in_tiles * plan.out_tiles * params.shape.groups * plan.shares;
  if (blocks > INT32_MAX) return cudaErrorInvalidValue;
  const auto kernel = fused_wgrad_kernel<T, Product>;
  constexpr int kBytes = Tile<T, Product>::kSharedBytes;
  if (const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes))
    return error;
  LAUNCH(kernel, static_cast<unsigned>(blocks), kWgradThreads, kBytes, stream, Problem<T>(params, plan));
  return cudaGetLastError();
}

}  // namespace
}  // namespace gconv::cuda
