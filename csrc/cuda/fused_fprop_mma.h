// fused_fprop on the tensor cores. T: __nv_bfloat16, __half, or float for products in tf32.
#pragma once

#include "fused.h"

namespace gconv::cuda {

template <typename T>
cudaError_t fused_fprop_mma(const FusedFpropParams& params, cudaStream_t stream);

}  // namespace gconv::cuda
