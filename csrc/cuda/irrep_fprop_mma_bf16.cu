#include "irrep_fprop_mma_kernel.h"

namespace gconv::cuda {
template cudaError_t irrep_fprop_mma<__nv_bfloat16>(const IrrepFpropParams&, const void*, cudaStream_t);
}
