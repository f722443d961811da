#include "irrep_fprop_wgmma_kernel.h"

namespace gconv::cuda {
template cudaError_t irrep_fprop_wgmma<__half>(const IrrepFpropParams&, const void*, cudaStream_t);
}
