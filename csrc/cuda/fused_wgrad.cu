#include "fused_tiles.h"
#include "fused_wgrad_plan.h"
#include "wgrad_shares.h"

namespace gconv::cuda {
namespace {

int bytes_of(ScalarType type) { return type == ScalarType::Float64 ? 8 : type == ScalarType::Float32 ? 4 : 2; }

}  // namespace

FusedWgradPlan plan_fused_wgrad(const FusedWgradParams& params) {
  const ConvShape& shape = params.shape;
  const int bytes = bytes_of(params.type), order = static_cast<int>(shape.order());
  FusedWgradPlan plan;
  plan.mma = bytes == 2 || (bytes == 4 && params.tf32);
  const WgradSizes sizes = wgrad_sizes(shape, bytes, plan.mma);
  plan.rows = sizes.rows, plan.columns = sizes.columns;
  plan.orbits = static_cast<int>(orbits(shape).size());
  plan.in_tiles = static_cast<int>(divided(shape.in_fields, plan.rows / order));
  plan.out_tiles = static_cast<int>(divided(shape.out_fields, plan.columns / order));
  plan.pixels = shape.batch * shape.rows.out * shape.columns.out;
  const int64_t blocks_of_share = int64_t{plan.orbits} * plan.in_tiles * plan.out_tiles * shape.groups;
  const Shares shares = shares_of(plan.pixels, wgrad_stage_pixels(bytes), divided(kWgradBlocks, blocks_of_share), 4);
  plan.shares = shares.count;
  plan.share_pixels = shares.pixels;
  plan.written_directly = plan.shares == 1 && !shape.lifting;
  return plan;
}

int64_t fused_wgrad_workspace(const FusedWgradParams& params) {
  if (!pairs_of(params.shape)) return 0;
  const FusedWgradPlan plan = plan_fused_wgrad(params);
  return plan.written_directly ? 0 : plan.shares * share_bytes(params.type, params.shape, params.banks, plan.orbits);
}

cudaError_t fused_wgrad(const FusedWgradParams& params, cudaStream_t stream) {
  if (!pairs_of(params.shape)) return cudaSuccess;
  if (!positions_fit(params.shape)) return cudaErrorInvalidValue;
  const FusedWgradPlan plan = plan_fused_wgrad(params);
  const cudaError_t error = plan.mma ? fused_wgrad_mma(params, plan, stream) : fused_wgrad_simt(params, plan, stream);
  if (error || plan.written_directly) return error;
  return add_shares(params.type, params.shape, params.banks, plan.orbits, plan.shares, params.workspace,
                    params.grad_weight, stream);
}

}  // namespace gconv::cuda
