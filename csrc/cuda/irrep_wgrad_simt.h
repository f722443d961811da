// irrep_wgrad on the CUDA cores, for float64 and for float32 that is not rounded to tf32.
#pragma once

#include "irrep_wgrad_plan.h"

namespace gconv::cuda {

cudaError_t irrep_wgrad_simt(const IrrepWgradParams& params, const WgradPlan& plan, cudaStream_t stream);

}  // namespace gconv::cuda
