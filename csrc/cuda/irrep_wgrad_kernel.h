// The kernel of irrep_wgrad, in the words of irrep_wgrad_plan.h. What multiplies is a Tile: a product of
// wgrad_products.h, of one plane of X̂ with one of ŷ, and kWarps of WgradTile.
#pragma once

#include "irrep_wgrad_map.h"
#include "irrep_wgrad_problem.h"
#include "wgrad_products.h"

namespace gconv::cuda {

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

  __shared__ WgradPart parts[Tile::kWarps];  // because registers are scarce
  if (lane == 0) parts[warp] = wgrad_part(p, blockIdx.x, warps, warp, Tile::kIn, Tile::kOut);
  __syncthreads();
  const WgradPart& part = parts[warp];
  const bool active = part.active;

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

  const SharePixels share = share_pixels(p, part.share);
  const int stages = (share.count + kStage - 1) / kStage;

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
    read_elements<true>(y_read, p.dy, y_shifts, pixel < share.count, share.pixel(p, pixel),
                        part.out_first + y_field(y_item));
  };
  const auto store_y = [&](int stage) {
    transform<T, Group, Tile::kTf32>(y_read, wgrad_scale(p, part.bank, order, false));
    T* const to = y_tiles + (stage % 2 * order * kStage + y_pixel(y_item)) * kOutPitch + y_field(y_item);
#pragma unroll
    for (int g = 0; g < order; ++g) *reinterpret_cast<uint4*>(to + g * kStage * kOutPitch) = y_read[g];
  };
  const auto read_x = [&](int step) {
#pragma unroll
    for (int i = 0; i < kReads; ++i) {
      const int item = lane + 32 * i, pixel = step * kStep + x_pixel(item), field = part.in_first + x_field(item);
      read_elements<false>(x_read[i], p.x, x_shifts[warp], pixel < share.count, share.pixel(p, pixel), field);
    }
  };
  const auto store_x = [&] {
#pragma unroll
    for (int i = 0; i < kReads; ++i) {
      const int item = lane + 32 * i;
      transform<T, Group, Tile::kTf32>(x_read[i], wgrad_scale(p, part.bank, order, true));
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
          for_each_product_of_y<Group, kPlane>([&](auto x_plane, auto w_plane, auto negated) {
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
  const int tap = first_tap(p.matrices, order, p.size, p.lifting, part.orbit);
#pragma unroll
  for (int i = 0; i < Tile::kIn * Tile::kOut / 32; ++i) {
    accumulate_t<T> f[1][order];
#pragma unroll
    for (int plane = 0; plane < order; ++plane) f[0][plane] = sums[plane][i];
    store_gradients<Group>(p, part, tap, part.in_first + Tile::in_field(i), part.out_first + Tile::out_field(i), f);
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
  const int64_t blocks = wgrad_blocks(params, plan);
  if (blocks > INT32_MAX) return cudaErrorInvalidValue;
  LAUNCH(kernel, static_cast<unsigned>(blocks), 32 * plan.warps, bytes, stream, WgradProblem<T>(params, plan));
  return cudaGetLastError();
}

}  // namespace gconv::cuda
