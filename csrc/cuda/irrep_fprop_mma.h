// The irrep algorithm on the tensor cores. T: __nv_bfloat16, __half, or float for products in tf32.
#pragma once

#include "irrep.h"

namespace gconv::cuda {

// transformed: Ψ̂ as irrep_transform_weight makes it; nullptr: blocks of threads make it of params.weight, of which
// there are at most kMostWeightBytes (irrep_weight.h).
template <typename T>
cudaError_t irrep_fprop_mma(const IrrepFpropParams& params, const void* transformed, cudaStream_t stream);

}  // namespace gconv::cuda
