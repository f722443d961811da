// How irrep_wgrad cuts its work, of the shape, the type and how the maps lie in memory alone, so that every sum has an
// order of its own.
#pragma once

#include "irrep.h"
#include "wgrad_products.h"

namespace gconv::cuda {

// What a warp sums of one orbit, in all planes, and how many warps a block may have.
struct WgradTile {
  int in_fields, out_fields, warps;
};

// Within 128 registers of sums a thread. Up to 8 warps may have 255 registers, 9 (all orbits of 3 × 3 taps) only 168.
constexpr WgradTile mma_wgrad_tile(int order, bool wide) {
  return wide ? WgradTile{order == 8 ? 16 : 32, 32, 8} : WgradTile{16, 16, 9};
}
constexpr WgradTile simt_wgrad_tile(int bytes) { return {16, bytes == 8 ? 8 : 16, 8}; }

// What multiplies: the kernel of irrep_wgrad_kernel.h on the CUDA cores, or on the tensor cores with narrow or wide tiles;
// that of irrep_wgrad_direct_kernel.h, which has X̂ in registers alone; or that of irrep_wgrad_staged.cu, which has x and dy
// in shared memory.
enum class WgradKernel { Simt, Mma, WideMma, Direct, Staged };

// Direct: of as many out fields as fill the tiles.
constexpr int kDirectWarps = 4, kMostDirectSize = 15;
constexpr WgradTile direct_wgrad_tile(int order, int64_t out_fields) {
  if (order == 8) return {16, out_fields > 16 ? 32 : 16, kDirectWarps};
  return (out_fields + 31) / 32 % 2 ? WgradTile{32, 32, kDirectWarps} : WgradTile{16, 64, kDirectWarps};
}

// Staged: a block has all orbits, three a warp, and where that leaves warps, these share the steps of a tile of pixels.
constexpr int kWgradTilePixels = 64, kStagedOrbits = 3, kStagedWarps = 6;
inline int staged_orbit_groups(const ConvShape& shape) {
  return static_cast<int>((shape.taps() + kStagedOrbits - 1) / kStagedOrbits);
}
inline WgradTile staged_wgrad_tile(const ConvShape& shape) {
  const int groups = staged_orbit_groups(shape);
  return {16, 16, groups == 1 ? 4 : groups <= kStagedWarps / 2 ? 2 * groups : groups};
}

constexpr int kStepsPerStage = 2;  // stages are a block's, steps a warp's

// So that each thread transforms one chunk of ŷ in a stage, or none.
constexpr int least_warps(const WgradTile& tile) { return kStepsPerStage * tile.out_fields / 16; }

// A warp's job is one orbit of taps × one tile of in fields. The jobs of a block share ŷ: one tile of out fields of one
// block of fields and one bank, over one share of the pixels.
struct WgradPlan {
  WgradKernel kernel = WgradKernel::Simt;
  int warps = 1, out_columns = 0;  // out_columns: of a tile
  int orbits = 0, jobs = 0, job_blocks = 0, out_tiles = 0;
  int64_t pixels = 0, shares = 1, share_pixels = 0;
  bool written_directly = false;  // without shares in the workspace
};

WgradPlan plan_irrep_wgrad(const IrrepWgradParams& params);

// Blocks of threads.
inline int64_t wgrad_blocks(const IrrepWgradParams& params, const WgradPlan& plan) {
  return int64_t{plan.job_blocks} * plan.out_tiles * params.shape.groups * params.banks * plan.shares;
}

}  // namespace gconv::cuda
