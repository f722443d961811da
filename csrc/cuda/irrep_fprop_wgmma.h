// The irrep algorithm with wgmma, Hopper's matrix instructions. T: __nv_bfloat16 or __half.
#pragma once

#include "irrep.h"

namespace gconv::cuda {

// Whether irrep_fprop_wgmma can compute the layer: one of C4 or D4, neither lifting, relaxed nor masked nor with a spread,
// in whose x and Ψ̂ the fields lie together, in vectors of 16 bytes.
bool irrep_fprop_wgmma_takes(const IrrepFpropParams& params, const void* transformed);

// transformed: Ψ̂ as irrep_transform_weight makes it.
template <typename T>
cudaError_t irrep_fprop_wgmma(const IrrepFpropParams& params, const void* transformed, cudaStream_t stream);

}  // namespace gconv::cuda
