#include "fused_fprop_mma_kernel.h"

namespace gconv::cuda {
template cudaError_t fused_fprop_mma<__half>(const FusedFpropParams&, cudaStream_t);
}
