// irrep_wgrad of wide layers of C4, and of D4, in 16-bit types, of maps whose fields lie together: X̂ in registers alone.
// With mma.sync, and with wgmma, Hopper's matrix instructions, for more than 16 columns. T: __nv_bfloat16 or __half.
#pragma once

#include "irrep_wgrad_plan.h"

namespace gconv::cuda {

template <typename T>
cudaError_t irrep_wgrad_direct_mma(const IrrepWgradParams& params, const WgradPlan& plan, cudaStream_t stream);
template <typename T>
cudaError_t irrep_wgrad_direct_wgmma(const IrrepWgradParams& params, const WgradPlan& plan, cudaStream_t stream);

}  // namespace gconv::cuda
