#include <algorithm>

#include "irrep_wgrad_kernel.h"
#include "irrep_wgrad_mma.h"
#include "irrep_wgrad_simt.h"

namespace gconv::cuda {
namespace {

constexpr int64_t kWarps = 132 * 16;      // that a launch should have: 16 on each multiprocessor of an H200
constexpr int64_t kLeastStages = 4;       // of a share: below it, adding the shares costs more than making them
constexpr int64_t kMostPixels = 1 << 30;  // of an image, and half of it of a share, so that positions fit into int
constexpr int kNumbers = 32, kAdders = 8;  // of a block that adds shares

int64_t divided(int64_t a, int64_t b) { return (a + b - 1) / b; }

int bytes_of(ScalarType type) { return type == ScalarType::Float64 ? 8 : type == ScalarType::Float32 ? 4 : 2; }

int64_t pairs_of(const ConvShape& shape) { return shape.groups * shape.out_fields * shape.in_fields; }

struct Layout {  // of grad_weight
  std::array<Matrix, kMaxOrder> matrices;
  int order, size;
  bool lifting;
  int64_t pairs, orbits, numbers, shares;  // numbers: of one share
};

// Elements that move a tap of a lifting convolution to the same place add up there, once for each that leaves it alone.
template <typename T>
__global__ void __launch_bounds__(kNumbers* kAdders)
    add_shares_kernel(const __grid_constant__ Layout layout, const accumulate_t<T>* shares, T* grad_weight) {
  __shared__ accumulate_t<T> parts[kAdders][kNumbers];
  const int order = layout.order, size = layout.size, taps = size * size;
  const int64_t i = int64_t{blockIdx.x} * kNumbers + threadIdx.x;
  const int64_t pair = i % layout.pairs, slot = i / layout.pairs;
  const int g = static_cast<int>(slot % order), orbit = static_cast<int>(slot / order % layout.orbits);
  const int64_t bank = slot / order / layout.orbits;
  accumulate_t<T> sum = 0;
  int tap = 0, moved = 0, first = g, stabiliser = 0;
  if (i < layout.numbers) {
    tap = first_tap(layout.matrices, order, size, layout.lifting, orbit);
    moved = moved_tap(layout.matrices[g], tap, size);
    for (int h = order - 1; h >= 0; --h) {
      if (layout.lifting ? moved_tap(layout.matrices[h], tap, size) != moved : h != g) continue;
      first = h;
      ++stabiliser;
      for (int64_t share = threadIdx.y; share < layout.shares; share += kAdders)
        sum += shares[share * layout.numbers + i + (h - g) * layout.pairs];
    }
  }
  parts[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || i >= layout.numbers || first != g) return;
  for (int adder = 1; adder < kAdders; ++adder) sum += parts[adder][threadIdx.x];
  const int64_t block = bank * layout.pairs + pair;
  grad_weight[layout.lifting ? block * taps + moved : (block * order + g) * taps + moved] = narrow<T>(sum / stabiliser);
}

}  // namespace

WgradPlan plan_irrep_wgrad(const IrrepWgradParams& params) {
  const ConvShape& shape = params.shape;
  const int bytes = bytes_of(params.type), order = static_cast<int>(shape.order());
  WgradPlan plan;
  plan.mma = bytes == 2 || (bytes == 4 && params.tf32);
  // A wide tile is wider than 16 in both directions, but for order 8.
  plan.wide = plan.mma && shape.out_fields > 16 && (shape.in_fields > 16 || order == 8);
  const WgradTile tile = plan.mma ? mma_wgrad_tile(order, plan.wide) : simt_wgrad_tile(bytes);
  plan.orbits = static_cast<int>(orbits(shape).size());
  plan.jobs = plan.orbits * static_cast<int>(divided(shape.in_fields, tile.in_fields));
  plan.job_blocks = static_cast<int>(divided(plan.jobs, tile.warps));
  plan.warps = std::max(least_warps(tile), static_cast<int>(divided(plan.jobs, plan.job_blocks)));
  plan.out_tiles = static_cast<int>(divided(shape.out_fields, tile.out_fields));

  plan.pixels = shape.batch * shape.rows.out * shape.columns.out;
  const int64_t stage = kStepsPerStage * wgrad_step_pixels(bytes), stages = divided(plan.pixels, stage);
  const int64_t warps_of_share = int64_t{plan.job_blocks} * plan.warps * plan.out_tiles * shape.groups * params.banks;
  const int64_t wanted = std::min(divided(kWarps, warps_of_share), stages / kLeastStages);
  const int64_t stages_of_share =
      std::min(divided(stages, std::max<int64_t>(1, wanted)), kMostPixels / 2 / stage);
  plan.shares = stages ? divided(stages, stages_of_share) : 1;
  plan.share_pixels = stages_of_share * stage;
  plan.written_directly = plan.shares == 1 && !shape.lifting;
  return plan;
}

int64_t irrep_wgrad_workspace(const IrrepWgradParams& params) {
  if (!pairs_of(params.shape)) return 0;
  const WgradPlan plan = plan_irrep_wgrad(params);
  if (plan.written_directly) return 0;
  const int64_t numbers = params.banks * plan.orbits * params.shape.order() * pairs_of(params.shape);
  return plan.shares * numbers * (params.type == ScalarType::Float64 ? 8 : 4);
}

cudaError_t irrep_wgrad(const IrrepWgradParams& params, cudaStream_t stream) {
  const ConvShape& shape = params.shape;
  if (!pairs_of(shape)) return cudaSuccess;
  for (const Axis& axis : {shape.rows, shape.columns})
    if (axis.in + 2 * axis.padding > kMostPixels) return cudaErrorInvalidValue;
  if (shape.rows.out * shape.columns.out > kMostPixels) return cudaErrorInvalidValue;
  const WgradPlan plan = plan_irrep_wgrad(params);
  const cudaError_t error =
      plan.mma ? irrep_wgrad_mma(params, plan, stream) : irrep_wgrad_simt(params, plan, stream);
  if (error || plan.written_directly) return error;
  return dispatch(params.type, [&](auto number) {
    using T = decltype(number);
    const int order = static_cast<int>(shape.order());
    const int64_t numbers = params.banks * plan.orbits * order * pairs_of(shape);
    const Layout layout{shape.group->matrices, order,       shape.size, shape.lifting,
                        pairs_of(shape),       plan.orbits, numbers,    plan.shares};
    LAUNCH(add_shares_kernel<T>, static_cast<unsigned>(divided(numbers, kNumbers)), dim3(kNumbers, kAdders), 0, stream,
           layout, static_cast<const accumulate_t<T>*>(params.workspace), static_cast<T*>(params.grad_weight));
    return cudaGetLastError();
  });
}

}  // namespace gconv::cuda
