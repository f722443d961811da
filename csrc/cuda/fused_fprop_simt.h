// fused_fprop on the CUDA cores, for float64 and for float32 that is not rounded to tf32.
#pragma once

#include "fused.h"

namespace gconv::cuda {

cudaError_t fused_fprop_simt(const FusedFpropParams& params, cudaStream_t stream);

}  // namespace gconv::cuda
