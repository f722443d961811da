#include "cuda_16bit_emulation.h"  // in place of CUDA's header
