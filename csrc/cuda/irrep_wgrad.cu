#include <algorithm>

#include "irrep_wgrad_kernel.h"
#include "irrep_wgrad_mma.h"
#include "irrep_wgrad_simt.h"

namespace gconv::cuda {
namespace {

constexpr int64_t kWarps = 132 * 16;  // that a launch should have: 16 on each multiprocessor of an H200

int bytes_of(ScalarType type) { return type == ScalarType::Float64 ? 8 : type == ScalarType::Float32 ? 4 : 2; }

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
  const int64_t warps_of_share = int64_t{plan.job_blocks} * plan.warps * plan.out_tiles * shape.groups * params.banks;
  const Shares shares =
      shares_of(plan.pixels, kStepsPerStage * wgrad_step_pixels(bytes), divided(kWarps, warps_of_share));
  plan.shares = shares.count;
  plan.share_pixels = shares.pixels;
  plan.written_directly = plan.shares == 1 && !shape.lifting;
  return plan;
}

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
  const cudaError_t error = plan.mma ? irrep_wgrad_mma(params, plan, stream) : irrep_wgrad_simt(params, plan, stream);
  if (error || plan.written_directly) return error;
  return add_shares(params.type, shape, params.banks, plan.orbits, plan.shares, params.workspace, params.grad_weight,
                    stream);
}

}  // namespace gconv::cuda
