// irrep_wgrad of few fields of C4 and D2 in 16-bit types, stride and dilation 1: a block of threads has what it reads of x
// and dy in shared memory.
#pragma once

#include "irrep_wgrad_plan.h"

namespace gconv::cuda {

// Whether irrep_wgrad_staged can compute the layer.
bool irrep_wgrad_staged_takes(const IrrepWgradParams& params);

cudaError_t irrep_wgrad_staged(const IrrepWgradParams& params, const WgradPlan& plan, cudaStream_t stream);

}  // namespace gconv::cuda
