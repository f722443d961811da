// The gradient of the weights as a sum over shares of the pixels: blocks of threads make [share, bank, orbit, g, pair
// of fields] in the type that sums are formed in, and a last launch adds the shares. An orbit's Ψ[g] as in
// ../conv_shape.h; of a lifting convolution before the division by stabilisers.
#pragma once

#include <cuda_runtime_api.h>

#include "../conv_shape.h"
#include "../scalar_type.h"
#include "device.h"

namespace gconv::cuda {

inline int64_t divided(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t pairs_of(const ConvShape& shape) { return shape.groups * shape.out_fields * shape.in_fields; }

struct Shares {
  int64_t count, pixels;  // pixels: of one, whole stages
};

// About as many as wanted, each of at least that many stages: below some number, adding the shares costs more than making
// them.
Shares shares_of(int64_t pixels, int64_t stage, int64_t wanted, int64_t least_stages);

// Whether positions of pixels are 32-bit numbers.
bool positions_fit(const ConvShape& shape);

int64_t share_bytes(ScalarType type, const ConvShape& shape, int64_t banks, int orbits);

cudaError_t add_shares(ScalarType type, const ConvShape& shape, int64_t banks, int orbits, int64_t shares,
                       const void* workspace, void* grad_weight, cudaStream_t stream);

// The tap that `orbit` starts with, in the order of orbits() of ../conv_shape.h.
__device__ inline int first_tap(const std::array<Matrix, kMaxOrder>& matrices, int order, int size, bool lifting,
                                int orbit) {
  if (!lifting) return orbit;
  int tap = -1;
  for (int found = -1; found < orbit;) {
    ++tap;
    bool first = true;
    for (int g = 1; g < order; ++g) first &= moved_tap(matrices[g], tap, size) >= tap;
    found += first;
  }
  return tap;
}

}  // namespace gconv::cuda
