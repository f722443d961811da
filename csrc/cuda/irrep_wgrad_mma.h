// irrep_wgrad on the tensor cores, for the 16-bit types and for float32 rounded to tf32.
#pragma once

#include "irrep_wgrad_plan.h"

namespace gconv::cuda {

cudaError_t irrep_wgrad_mma(const IrrepWgradParams& params, const WgradPlan& plan, cudaStream_t stream);

}  // namespace gconv::cuda
