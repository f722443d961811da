#include <algorithm>

#include "irrep_wgrad_direct.h"
#include "irrep_wgrad_kernel.h"
#include "irrep_wgrad_mma.h"
#include "irrep_wgrad_simt.h"
#include "irrep_wgrad_staged.h"
#include "map_layout.h"
#include "wgmma_choice.h"

namespace gconv::cuda {
namespace {

constexpr int64_t kMultiprocessors = 132;                // of an H200, for which launches are cut
constexpr int64_t kWarps = kMultiprocessors * 16;        // that a launch should have
constexpr int64_t kDirectBlocks = kMultiprocessors * 2;  // as many as run at once
constexpr int64_t kStagedBlocks = kMultiprocessors * 2;

int bytes_of(ScalarType type) { return type == ScalarType::Float64 ? 8 : type == ScalarType::Float32 ? 4 : 2; }

// By arithmetic, not measured: half empty tiles are left to the kernel that has smaller ones.
bool takes_direct(const IrrepWgradParams& params) {
  const ConvShape& shape = params.shape;
  if (bytes_of(params.type) != 2 || shape.out_fields <= 16 || shape.size > kMostDirectSize) return false;
  if (shape.group->name == "C4" ? shape.in_fields <= 16 : shape.group->name != "D4") return false;
  const int neighbours = direct_wgrad_tile(static_cast<int>(shape.order()), shape.out_fields).in_fields / 8;
  const auto lies_in_chunks = [&](const void* map) {
    return map_width<uint16_t>(map, params.dy_strides, shape.out_fields, 8) == 8;
  };
  return map_width<uint16_t>(params.x, params.x_strides, shape.in_fields, neighbours) == neighbours &&
         lies_in_chunks(params.dy) && lies_in_chunks(params.dy_activated) && offsets_fit(shape, params.x_strides);
}

// The pixels into shares of whole stages.
void cut(WgradPlan& plan, int64_t stage, int64_t wanted, int64_t least_stages, const ConvShape& shape) {
  const Shares shares = shares_of(plan.pixels, stage, wanted, least_stages);
  plan.shares = shares.count;
  plan.share_pixels = shares.pixels;
  plan.written_directly = plan.shares == 1 && !shape.lifting;
}

}  // namespace

WgradPlan plan_irrep_wgrad(const IrrepWgradParams& params) {
  const ConvShape& shape = params.shape;
  const int bytes = bytes_of(params.type), order = static_cast<int>(shape.order());
  WgradPlan plan;
  plan.mma = bytes == 2 || (bytes == 4 && params.tf32);
  plan.direct = takes_direct(params);
  plan.staged = irrep_wgrad_staged_takes(params);
  // A wide tile is wider than 16 in both directions, but for order 8.
  plan.wide = plan.mma && shape.out_fields > 16 && (shape.in_fields > 16 || order == 8);
  const WgradTile tile = plan.direct ? direct_wgrad_tile(order, shape.out_fields)
                         : plan.mma  ? mma_wgrad_tile(order, plan.wide)
                                     : simt_wgrad_tile(bytes);
  plan.orbits = static_cast<int>(orbits(shape).size());
  plan.pixels = shape.batch * shape.rows.out * shape.columns.out;
  if (plan.staged) {
    plan.job_blocks = plan.out_tiles = 1;
    plan.warps = irrep_wgrad_staged_warps(shape);
    cut(plan, kWgradTilePixels, std::max<int64_t>(1, kStagedBlocks / (shape.groups * params.banks)), 2, shape);
    return plan;
  }
  plan.jobs = plan.orbits * static_cast<int>(divided(shape.in_fields, tile.in_fields));
  plan.job_blocks = static_cast<int>(divided(plan.jobs, tile.warps));
  plan.warps =
      plan.direct ? tile.warps : std::max(least_warps(tile), static_cast<int>(divided(plan.jobs, plan.job_blocks)));
  plan.out_columns = tile.out_fields;
  plan.out_tiles = static_cast<int>(divided(shape.out_fields, tile.out_fields));

  const int64_t blocks_of_share = int64_t{plan.job_blocks} * plan.out_tiles * shape.groups * params.banks;
  const int64_t wanted = plan.direct ? kDirectBlocks / blocks_of_share : divided(kWarps, blocks_of_share * plan.warps);
  cut(plan, kStepsPerStage * wgrad_step_pixels(bytes), wanted, 4, shape);
  return plan;
}

namespace {

template <typename T>
cudaError_t multiply_direct(const IrrepWgradParams& params, const WgradPlan& plan, cudaStream_t stream) {
  return wgmma_allowed() ? irrep_wgrad_direct_wgmma<T>(params, plan, stream)
                         : irrep_wgrad_direct_mma<T>(params, plan, stream);
}

cudaError_t multiply(const IrrepWgradParams& params, const WgradPlan& plan, cudaStream_t stream) {
  if (plan.staged) return irrep_wgrad_staged(params, plan, stream);
  if (plan.direct)
    return params.type == ScalarType::BFloat16 ? multiply_direct<__nv_bfloat16>(params, plan, stream)
                                               : multiply_direct<__half>(params, plan, stream);
  return plan.mma ? irrep_wgrad_mma(params, plan, stream) : irrep_wgrad_simt(params, plan, stream);
}

}  // namespace

int64_t irrep_wgrad_workspace(const IrrepWgradParams& params) {
  if (!pairs_of(params.shape)) return 0;
  const WgradPlan plan = plan_irrep_wgrad(params);
  if (plan.written_directly) return 0;
  return plan.shares * share_bytes(params.type, params.shape, params.banks, plan.orbits);
}

cudaError_t irrep_wgrad(const IrrepWgradParams& params, cudaStream_t stream) {
  const ConvShape& shape = params.shape;
  if (!pairs_of(shape)) return cudaSuccess;
  if (!positions_fit(shape)) return cudaErrorInvalidValue;
  const WgradPlan plan = plan_irrep_wgrad(params);
  const cudaError_t error = multiply(params, plan, stream);
  if (error || plan.written_directly) return error;
  return add_shares(params.type, shape, params.banks, plan.orbits, plan.shares, params.workspace, params.grad_weight,
                    stream);
}

}  // namespace gconv::cuda
