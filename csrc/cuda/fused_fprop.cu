#include "fused.h"
#include "fused_fprop_mma.h"
#include "fused_fprop_simt.h"
#include "scalar_types.h"

namespace gconv::cuda {

cudaError_t fused_fprop(const FusedFpropParams& p, cudaStream_t stream) {
  if (p.shape.batch == 0) return cudaSuccess;
  switch (p.type) {
    case ScalarType::BFloat16: return fused_fprop_mma<__nv_bfloat16>(p, stream);
    case ScalarType::Float16: return fused_fprop_mma<__half>(p, stream);
    case ScalarType::Float32:
      if (p.tf32) return fused_fprop_mma<float>(p, stream);
      [[fallthrough]];
    case ScalarType::Float64: return fused_fprop_simt(p, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace gconv::cuda
