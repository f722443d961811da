#include "wgmma_choice.h"

#include <cuda_runtime_api.h>

#include <atomic>

namespace gconv::cuda {
namespace {

std::atomic<bool> allowed_now{true};

bool has_wgmma() {
#ifdef GCONV_SM90A
  int device = 0, major = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess && major == 9;
#else
  return false;
#endif
}

}  // namespace

bool wgmma_allowed() { return allowed_now && has_wgmma(); }
bool allow_wgmma(bool allowed) { return allowed_now.exchange(allowed); }

}  // namespace gconv::cuda
