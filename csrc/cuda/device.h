// What every kernel file starts with. Kernels stand in an anonymous namespace behind launchers, without torch headers;
// the same files are compiled by g++ and run by python_tests/emulation, which then provides what nvcc does not.
#pragma once

#include <cuda_runtime.h>

namespace gconv::cuda {

// Of shared memory, what a block may have without asking, and with: less on sm_86 and sm_89 than on sm_80 and sm_90.
constexpr int kUnaskedSharedBytes = 48 * 1024, kMostSharedBytes = 99 * 1024;

}  // namespace gconv::cuda

#ifdef __CUDACC__

// kernel<<<grid, block, shared_bytes, stream>>>(...). Several template arguments need parentheses around the kernel.
#define LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  kernel<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__)

// The dynamic shared memory of the launch, as bytes. Every kernel of a file must give it the same name.
#define DYN_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]

#endif
