#include "cuda_emulation.h"  // in place of CUDA's header
