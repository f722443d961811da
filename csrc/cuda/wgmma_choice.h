// Whether kernels take wgmma, Hopper's matrix instructions, in place of mma.sync.
#pragma once

namespace gconv::cuda {

// Whether they may: this was compiled for Hopper GPUs, the current device is one, and allow_wgmma does not say no.
bool wgmma_allowed();

// Whether kernels take wgmma for layers in which it should pay, as at first, or mma.sync for all: to compare the two.
// Returns what it was before.
bool allow_wgmma(bool allowed);

}  // namespace gconv::cuda
