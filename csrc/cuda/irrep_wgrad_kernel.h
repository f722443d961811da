// The kernel of irrep_wgrad, in the words of irrep_wgrad_plan.h. What multiplies is a Tile: a product of
// wgrad_products.h, of one plane of X̂ with one of ŷ, and kWarps of WgradTile.
#pragma once

#include <algorithm>

#include "irrep_wgrad_map.h"
#include "irrep_wgrad_plan.h"
#include "wgrad_products.h"
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

template <typename T, typename Group, typename Tile>
constexpr int wgrad_shared_bytes(int warps) {
  constexpr int step = wgrad_step_pixels(sizeof(T));
  return Group::table.order * sizeof(T) *
         (2 * kStepsPerStage * step * (Tile::kOut + kPadding) + warps * step * (Tile::kIn + kPadding));
}

template <typename T, typename Group, typename Tile>
__global__ void __launch_bounds__(32 * Tile::kWarps) irrep_wgrad_kernel(const __grid_constant__ WgradProblem<T> p) {
  constexpr int order = Group::table.order, kStep = wgrad_step_pixels(sizeof(T)), kStage = kStepsPerStage * kStep;
  constexpr int kInPitch = Tile::kIn + kPadding, kOutPitch = Tile::kOut + kPadding;
  constexpr int kInChunks = Tile::kIn / kChunk<T>, kOutChunks = Tile::kOut / kChunk<T>;
  constexpr int kReads = kStep * kInChunks / 32;  // chunks of X̂ that a lane transforms in one step
  const int warps = blockDim.x / 32, warp = threadIdx.x / 32, lane = threadIdx.x % 32;

  // Which part of the work is the warp's; in shared memory, because registers are scarce.
  struct Part {
    int orbit, in_first, out_first, block, bank, share;
  };
  __shared__ Part parts[Tile::kWarps];
  int index = blockIdx.x;
  const auto next = [&](int count) {
    const int digit = index % count;
    index /= count;
    return digit;
  };
  const int job = next(p.job_blocks) * warps + warp;
  const bool active = job < p.jobs;
  if (lane == 0) {
    const int out_first = next(p.out_tiles) * Tile::kOut, block = next(p.blocks), bank = next(p.banks);
    parts[warp] = {job % p.orbits, job / p.orbits * Tile::kIn, out_first, block, bank, index};
  }
  __syncthreads();
  const Part& part = parts[warp];

  DYN_SHARED(shared);
  T* const y_tiles = reinterpret_cast<T*>(shared);  // [2][plane][pixel of the stage][field]
  T* const x_tile = y_tiles + 2 * order * kStage * kOutPitch + warp * order * kStep * kInPitch;  // the warp's own
  alignas(16) __shared__ Shift x_shifts[Tile::kWarps][order];
  alignas(16) __shared__ Shift y_shifts[order];
  if (lane < order && active) {
    const int tap = moved_tap(p.matrices[lane], first_tap(p.matrices, order, p.size, p.lifting, part.orbit), p.size);
    const int row = tap / p.size * p.row_dilation, column = tap % p.size * p.column_dilation;
    const MapStrides& strides = p.x.strides;
    const int64_t plane = part.block * p.x.fields * strides.field + (p.lifting ? 0 : lane * strides.element);
    x_shifts[warp][lane] = {plane + row * strides.row + column * strides.column, row, column};
  }
  if (threadIdx.x < order)
    y_shifts[threadIdx.x] = {part.block * p.dy.fields * p.dy.strides.field + threadIdx.x * p.dy.strides.element, 0, 0};
  __syncthreads();

  const int64_t first_pixel = part.share * p.share_pixels;
  const int first_image = static_cast<int>(first_pixel / p.y_pixels.value);
  const int in_first_image = static_cast<int>(first_pixel % p.y_pixels.value);
  const int pixels = static_cast<int>(min(p.share_pixels, p.pixels - first_pixel));
  const int stages = (pixels + kStage - 1) / kStage;
  const auto locate = [&](int pixel) {  // of the share
    const int at = in_first_image + pixel, image = p.y_pixels.quotient(at), in_image = at - image * p.y_pixels.value;
    const int row = p.y_columns.quotient(in_image);
    return Pixel{first_image + image, row, in_image - row * p.y_columns.value};
  };
  const auto scale = [&](bool input) {
    return p.relaxed_weight && input == p.relax_input ? p.relaxed_weight + part.bank * order : nullptr;
  };

  // Neighbouring threads take what lies side by side in memory.
  const auto y_pixel = [&](int item) { return p.dy.in_rows ? item % kStage : item / kOutChunks; };
  const auto y_field = [&](int item) { return (p.dy.in_rows ? item / kStage : item % kOutChunks) * kChunk<T>; };
  const auto x_pixel = [&](int item) { return p.x.in_rows ? item % kStep : item / kInChunks; };
  const auto x_field = [&](int item) { return (p.x.in_rows ? item / kStep : item % kInChunks) * kChunk<T>; };

  uint4 y_read[order], x_read[kReads][order];
  const int y_item = threadIdx.x;
  const bool reads_y = y_item < kStage * kOutChunks;
  const auto read_y = [&](int stage) {
    const int pixel = stage * kStage + y_pixel(y_item);
    read_elements<true>(y_read, p.dy, y_shifts, pixel < pixels, locate(pixel), part.out_first + y_field(y_item));
  };
  const auto store_y = [&](int stage) {
    transform<T, Group, Tile::kTf32>(y_read, scale(false));
    T* const to = y_tiles + (stage % 2 * order * kStage + y_pixel(y_item)) * kOutPitch + y_field(y_item);
#pragma unroll
    for (int g = 0; g < order; ++g) *reinterpret_cast<uint4*>(to + g * kStage * kOutPitch) = y_read[g];
  };
  const auto read_x = [&](int step) {
#pragma unroll
    for (int i = 0; i < kReads; ++i) {
      const int item = lane + 32 * i, pixel = step * kStep + x_pixel(item), field = part.in_first + x_field(item);
      read_elements<false>(x_read[i], p.x, x_shifts[warp], pixel < pixels, locate(pixel), field);
    }
  };
  const auto store_x = [&] {
#pragma unroll
    for (int i = 0; i < kReads; ++i) {
      const int item = lane + 32 * i;
      transform<T, Group, Tile::kTf32>(x_read[i], scale(true));
      T* const to = x_tile + x_pixel(item) * kInPitch + x_field(item);
#pragma unroll
      for (int g = 0; g < order; ++g) *reinterpret_cast<uint4*>(to + g * kStep * kInPitch) = x_read[i][g];
    }
  };

  constexpr bool kKeepsY = order < 8;  // while it multiplies; 8 elements leave no registers for that
  // Maps are read one step (x) and one stage (dy) ahead: stage -1 is nothing else.
  typename Tile::Sums sums[order] = {};
  const int steps = stages * kStepsPerStage;
#pragma unroll 1
  for (int stage = -1; stage < stages; ++stage) {
    const bool ahead = reads_y && stage + 1 < stages;
#pragma unroll 1
    for (int i = 0; i < kStepsPerStage; ++i) {
      const int step = stage * kStepsPerStage + i;
      if (active && step >= 0) store_x();
      __syncwarp();
      if (ahead && i == 0) {
        read_y(stage + 1);
        if (!kKeepsY) store_y(stage + 1);
      }
      if (active && step >= -1 && step + 1 < steps) read_x(step + 1);
      if (active && step >= 0) {
        const T* const y_tile = y_tiles + (stage % 2 * order * kStage + i * kStep) * kOutPitch;
        for_each_index<order>([&](auto y_plane) {
          constexpr int kPlane = y_plane;
          typename Tile::Y y;
          Tile::read(y, y_tile + kPlane * kStage * kOutPitch);
          for_each_product<Group>([&](auto y_term, auto x_plane, auto w_plane, auto negated) {
            if constexpr (decltype(y_term)::value == kPlane)
              Tile::template add<decltype(negated)::value>(sums[w_plane], y, x_tile + x_plane * kStep * kInPitch);
          });
        });
      }
      __syncwarp();  // the tile has been read
    }
    if (kKeepsY && ahead) store_y(stage + 1);
    __syncthreads();
  }

  if (!active) return;
  const int tap = first_tap(p.matrices, order, p.size, p.lifting, part.orbit), taps = p.size * p.size;
  const int64_t pairs = int64_t{p.blocks} * p.dy.fields * p.x.fields;
#pragma unroll
  for (int i = 0; i < Tile::kIn * Tile::kOut / 32; ++i) {
    accumulate_t<T> f[order];
    for_each_index<order>([&](auto plane) {
      constexpr double factor = inverse_scales<Group>()[decltype(plane)::value];
      f[plane] = sums[plane][i] * static_cast<accumulate_t<T>>(factor);
    });
    inverse_fourier<Group>(f);
    const int in_field = part.in_first + Tile::in_field(i), out_field = part.out_first + Tile::out_field(i);
    if (in_field >= p.x.fields || out_field >= p.dy.fields) continue;
    const int64_t pair = (int64_t{part.block} * p.dy.fields + out_field) * p.x.fields + in_field;
    const int64_t slot = ((int64_t{part.share} * p.banks + part.bank) * p.orbits + part.orbit) * order;
    const int64_t row = (part.bank * pairs + pair) * order;
#pragma unroll
    for (int g = 0; g < order; ++g)
      if (p.shares)
        p.shares[(slot + g) * pairs + pair] = f[g];
      else
        p.grad_weight[(row + g) * taps + moved_tap(p.matrices[g], tap, p.size)] = narrow<T>(f[g]);
  }
}

template <typename T, typename Group, typename Tile>
cudaError_t launch_irrep_wgrad(const IrrepWgradParams& params, const WgradPlan& plan, cudaStream_t stream) {
  const auto kernel = irrep_wgrad_kernel<T, Group, Tile>;
  constexpr int kStaticBytes = 2048;  // more than parts and shifts take
  static_assert(wgrad_shared_bytes<T, Group, Tile>(Tile::kWarps) + kStaticBytes <= kMostSharedBytes);
  const int bytes = wgrad_shared_bytes<T, Group, Tile>(plan.warps);
  if (const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes))
    return error;
  const int64_t blocks = int64_t{plan.job_blocks} * plan.out_tiles * params.shape.groups * params.banks * plan.shares;
  if (blocks > INT32_MAX) return cudaErrorInvalidValue;
  LAUNCH(kernel, static_cast<unsigned>(blocks), 32 * plan.warps, bytes, stream, WgradProblem<T>(params, plan));
  return cudaGetLastError();
}

}  // namespace gconv::cuda
