// How fused_wgrad cuts its work, of the shape and the type alone, so that every sum has an order of its own.
#pragma once

#include "fused.h"

namespace gconv::cuda {

constexpr int kWgradWarps = 4, kWgradThreads = 32 * kWgradWarps;

// A block multiplies `rows`, in fields of all elements of x, with `columns`, out fields of all elements of y: of one
// orbit of taps and one block of fields, over one share of the pixels.
struct FusedWgradPlan {
  bool mma = false;
  int rows = 0, columns = 0;
  int orbits = 0, in_tiles = 0, out_tiles = 0;
  int64_t pixels = 0, shares = 1, share_pixels = 0;
  bool written_directly = false;  // without shares in the workspace
};

FusedWgradPlan plan_fused_wgrad(const FusedWgradParams& params);

// Pixels that are in shared memory at once.
constexpr int wgrad_stage_pixels(int bytes) { return bytes == 2 ? 32 : 16; }

// On the tensor cores, for the 16-bit types and for float32 rounded to tf32; on the CUDA cores, for the others.
cudaError_t fused_wgrad_mma(const FusedWgradParams& params, const FusedWgradPlan& plan, cudaStream_t stream);
cudaError_t fused_wgrad_simt(const FusedWgradParams& params, const FusedWgradPlan& plan, cudaStream_t stream);

}  // namespace gconv::cuda
