#include "irrep_fprop_wgmma_kernel.h"

namespace gconv::cuda {
template cudaError_t irrep_fprop_wgmma<__nv_bfloat16>(const IrrepFpropParams&, const void*, cudaStream_t);
}
