#include <algorithm>

#include "irrep_wgrad_direct.h"
#include "irrep_wgrad_kernel.h"
#include "irrep_wgrad_mma.h"
#include "irrep_wgrad_simt.h"
#include "irrep_wgrad_staged.h"
#include "map_layout.h"
#include "padded_map.h"
#include "wgmma_choice.h"

namespace gconv::cuda {
namespace {

constexpr int64_t kMultiprocessors = 132;                // of an H200, for which launches are cut
constexpr int64_t kWarps = kMultiprocessors * 16;        // that a launch should have
constexpr int64_t kBlocksAtOnce = kMultiprocessors * 2;  // of the kernels whose registers suffice for two

int bytes_of(ScalarType type) { return type == ScalarType::Float64 ? 8 : type == ScalarType::Float32 ? 4 : 2; }

// By arithmetic, not measured: half empty tiles are left to the kernel that has smaller ones.
bool suits_direct(const IrrepWgradParams& params) {
  const ConvShape& shape = params.shape;
  if (bytes_of(params.type) != 2 || shape.size > kMostDirectSize) return false;
  const bool wide = shape.in_fields > 16 && shape.out_fields > 16;
  return shape.group->name == "C4" ? wide : shape.group->name == "D4" && shape.out_fields > 8;
}
bool direct_reads_x(const IrrepWgradParams& params) {
  const ConvShape& shape = params.shape;
  const int neighbours = direct_wgrad_tile(static_cast<int>(shape.order()), shape.out_fields).in_fields / 8;
  return map_width<uint16_t>(params.x, params.x_strides, readable_x_fields(params), neighbours) == neighbours &&
         offsets_fit(shape, params.x_strides);
}
bool direct_reads_dy(const IrrepWgradParams& params) {
  const auto lies_in_chunks = [&](const void* map) {
    return map_width<uint16_t>(map, params.dy_strides, readable_dy_fields(params), 8) == 8;
  };
  return lies_in_chunks(params.dy) && lies_in_chunks(params.dy_activated);
}

// Where the maps are copied so that the kernel that has X̂ in registers can read them, and which of them.
struct Padding {
  bool x = false, dy = false;

  // By arithmetic, not measured, as for fprop: not of 1 × 1 taps, nor of few fields, whatever the group.
  explicit Padding(const IrrepWgradParams& params) {
    const ConvShape& s = params.shape;
    const bool pays = s.groups == 1 && s.size > 1 && s.in_fields > 16 && s.out_fields > 16;
    if (!suits_direct(params) || !pays || !padded_x(s).fits() || !padded_y(s).fits()) return;
    IrrepWgradParams padded = params;
    padded.x = nullptr, padded.x_strides = padded_x(s).strides(), padded.x_fields = padded_fields(s.in_fields);
    if (!direct_reads_x(padded)) return;
    x = !direct_reads_x(params), dy = !direct_reads_dy(params);
  }
  int64_t bytes(const ConvShape& s) const { return (x ? padded_x(s).bytes() : 0) + (dy ? padded_y(s).bytes() : 0); }

  // The layer with these copies, in `memory`.
  IrrepWgradParams apply(IrrepWgradParams params, const void* memory) const {
    const ConvShape& s = params.shape;
    if (x) params.x = memory, params.x_strides = padded_x(s).strides(), params.x_fields = padded_fields(s.in_fields);
    if (dy) {
      params.dy = reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(memory) + (x ? padded_x(s).bytes() : 0));
      params.dy_activated = nullptr;
      params.dy_strides = padded_y(s).strides(), params.dy_fields = padded_fields(s.out_fields);
    }
    return params;
  }
  cudaError_t copy(const IrrepWgradParams& from, const IrrepWgradParams& to, cudaStream_t stream) const {
    const ConvShape& s = from.shape;
    if (x)
      if (const cudaError_t error =
              pad_map(from.type, padded_x(s), from.x, nullptr, from.x_strides, const_cast<void*>(to.x), stream))
        return error;
    if (!dy) return cudaSuccess;
    return pad_map(from.type, padded_y(s), from.dy, from.dy_activated, from.dy_strides, const_cast<void*>(to.dy),
                   stream);
  }
};

WgradKernel choose_kernel(const IrrepWgradParams& params) {
  const ConvShape& shape = params.shape;
  if (irrep_wgrad_staged_takes(params)) return WgradKernel::Staged;
  if (suits_direct(params) && direct_reads_x(params) && direct_reads_dy(params)) return WgradKernel::Direct;
  if (bytes_of(params.type) == 8 || (bytes_of(params.type) == 4 && !params.tf32)) return WgradKernel::Simt;
  // A wide tile is wider than 16 in both directions, but for order 8.
  const bool wide = shape.out_fields > 16 && (shape.in_fields > 16 || shape.order() == 8);
  return wide ? WgradKernel::WideMma : WgradKernel::Mma;
}

WgradTile tile_of(WgradKernel kernel, const IrrepWgradParams& params) {
  const int order = static_cast<int>(params.shape.order());
  switch (kernel) {
    case WgradKernel::Staged: return staged_wgrad_tile(params.shape);
    case WgradKernel::Direct: return direct_wgrad_tile(order, params.shape.out_fields);
    case WgradKernel::WideMma: return mma_wgrad_tile(order, true);
    case WgradKernel::Mma: return mma_wgrad_tile(order, false);
    case WgradKernel::Simt: break;
  }
  return simt_wgrad_tile(bytes_of(params.type));
}

// The pixels into about `wanted` shares of whole stages.
void cut(WgradPlan& plan, int64_t stage, int64_t wanted, int64_t least_stages, bool lifting) {
  const Shares shares = shares_of(plan.pixels, stage, wanted, least_stages);
  plan.shares = shares.count;
  plan.share_pixels = shares.pixels;
  plan.written_directly = plan.shares == 1 && !lifting;
}

template <typename T>
cudaError_t multiply_direct(const IrrepWgradParams& params, const WgradPlan& plan, cudaStream_t stream) {
  return wgmma_allowed() && plan.out_columns > 16 ? irrep_wgrad_direct_wgmma<T>(params, plan, stream)
                                                  : irrep_wgrad_direct_mma<T>(params, plan, stream);
}

cudaError_t multiply(const IrrepWgradParams& params, const WgradPlan& plan, cudaStream_t stream) {
  switch (plan.kernel) {
    case WgradKernel::Staged: return irrep_wgrad_staged(params, plan, stream);
    case WgradKernel::Direct:
      return params.type == ScalarType::BFloat16 ? multiply_direct<__nv_bfloat16>(params, plan, stream)
                                                 : multiply_direct<__half>(params, plan, stream);
    case WgradKernel::WideMma:
    case WgradKernel::Mma: return irrep_wgrad_mma(params, plan, stream);
    case WgradKernel::Simt: break;
  }
  return irrep_wgrad_simt(params, plan, stream);
}

}  // namespace

WgradPlan plan_irrep_wgrad(const IrrepWgradParams& params) {
  const ConvShape& shape = params.shape;
  WgradPlan plan;
  plan.kernel = choose_kernel(params);
  const bool staged = plan.kernel == WgradKernel::Staged, direct = plan.kernel == WgradKernel::Direct;
  const WgradTile tile = tile_of(plan.kernel, params);
  plan.orbits = static_cast<int>(orbits(shape).size());
  plan.pixels = shape.batch * shape.rows.out * shape.columns.out;
  plan.out_columns = tile.out_fields;
  plan.out_tiles = static_cast<int>(divided(shape.out_fields, tile.out_fields));
  plan.warps = tile.warps;
  if (staged) {  // all orbits are one block's
    plan.jobs = plan.job_blocks = 1;
  } else {
    plan.jobs = plan.orbits * static_cast<int>(divided(shape.in_fields, tile.in_fields));
    plan.job_blocks = static_cast<int>(divided(plan.jobs, tile.warps));
    if (!direct) plan.warps = std::max(least_warps(tile), static_cast<int>(divided(plan.jobs, plan.job_blocks)));
  }

  const int64_t blocks = int64_t{plan.job_blocks} * plan.out_tiles * shape.groups * params.banks;  // of a share
  const int64_t stage = kStepsPerStage * wgrad_step_pixels(bytes_of(params.type));
  if (staged)
    cut(plan, kWgradTilePixels, kBlocksAtOnce / blocks, 2, shape.lifting);
  else if (direct)
    cut(plan, stage, kBlocksAtOnce / blocks, 4, shape.lifting);
  else
    cut(plan, stage, divided(kWarps, blocks * plan.warps), 4, shape.lifting);
  return plan;
}

int64_t irrep_wgrad_workspace(const IrrepWgradParams& params) {
  if (!pairs_of(params.shape)) return 0;
  const Padding padding(params);
  const WgradPlan plan = plan_irrep_wgrad(padding.apply(params, nullptr));
  const int64_t copies = padding.bytes(params.shape);
  if (plan.written_directly) return copies;
  return copies + plan.shares * share_bytes(params.type, params.shape, params.banks, plan.orbits);
}

cudaError_t irrep_wgrad(const IrrepWgradParams& given, cudaStream_t stream) {
  const ConvShape& shape = given.shape;
  if (!pairs_of(shape)) return cudaSuccess;
  if (!positions_fit(shape)) return cudaErrorInvalidValue;
  const Padding padding(given);
  IrrepWgradParams params = padding.apply(given, given.workspace);
  params.workspace = static_cast<char*>(given.workspace) + padding.bytes(shape);
  if (const cudaError_t error = padding.copy(given, params, stream)) return error;
  const WgradPlan plan = plan_irrep_wgrad(params);
  const cudaError_t error = multiply(params, plan, stream);
  if (error || plan.written_directly) return error;
  return add_shares(params.type, shape, params.banks, plan.orbits, plan.shares, params.workspace, params.grad_weight,
                    stream);
}

}  // namespace gconv::cuda
