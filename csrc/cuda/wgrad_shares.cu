#include "wgrad_shares.h"

#include <algorithm>

#include "scalar_types.h"

namespace gconv::cuda {
namespace {

constexpr int64_t kMostPixels = 1 << 30;   // of an image, and half of it of a share, so that positions fit into int
constexpr int kNumbers = 32, kAdders = 8;  // of a block that adds shares

struct Layout {  // of grad_weight
  std::array<Matrix, kMaxOrder> matrices;
  int order, size;
  bool lifting;
  int64_t pairs, orbits, numbers, shares;  // numbers: of one share
};

// Elements that move a tap of a lifting convolution to the same place add up there, once for each that leaves it alone.
template <typename T>
__global__ void __launch_bounds__(kNumbers* kAdders)
    add_shares_kernel(const __grid_constant__ Layout layout, const accumulate_t<T>* shares, T* grad_weight) {
  __shared__ accumulate_t<T> parts[kAdders][kNumbers];
  const int order = layout.order, size = layout.size, taps = size * size;
  const int64_t i = int64_t{blockIdx.x} * kNumbers + threadIdx.x;
  const int64_t pair = i % layout.pairs, slot = i / layout.pairs;
  const int g = static_cast<int>(slot % order), orbit = static_cast<int>(slot / order % layout.orbits);
  const int64_t bank = slot / order / layout.orbits;
  accumulate_t<T> sum = 0;
  int tap = 0, moved = 0, first = g, stabiliser = 0;
  if (i < layout.numbers) {
    tap = first_tap(layout.matrices, order, size, layout.lifting, orbit);
    moved = moved_tap(layout.matrices[g], tap, size);
    for (int h = order - 1; h >= 0; --h) {
      if (layout.lifting ? moved_tap(layout.matrices[h], tap, size) != moved : h != g) continue;
      first = h;
      ++stabiliser;
      for (int64_t share = threadIdx.y; share < layout.shares; share += kAdders)
        sum += shares[share * layout.numbers + i + (h - g) * layout.pairs];
    }
  }
  parts[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || i >= layout.numbers || first != g) return;
  for (int adder = 1; adder < kAdders; ++adder) sum += parts[adder][threadIdx.x];
  const int64_t block = bank * layout.pairs + pair;
  grad_weight[layout.lifting ? block * taps + moved : (block * order + g) * taps + moved] = narrow<T>(sum / stabiliser);
}

}  // namespace

Shares shares_of(int64_t pixels, int64_t stage, int64_t wanted, int64_t least_stages) {
  const int64_t stages = divided(pixels, stage);
  if (!stages) return {1, stage};
  const int64_t count = std::max<int64_t>(1, std::min(wanted, stages / least_stages));
  const int64_t stages_of_share = std::min(divided(stages, count), kMostPixels / 2 / stage);
  return {divided(stages, stages_of_share), stages_of_share * stage};
}

bool positions_fit(const ConvShape& shape) {
  for (const Axis& axis : {shape.rows, shape.columns})
    if (axis.in + 2 * axis.padding > kMostPixels) return false;
  return shape.rows.out * shape.columns.out <= kMostPixels;
}

int64_t share_bytes(ScalarType type, const ConvShape& shape, int64_t banks, int orbits) {
  return banks * orbits * shape.order() * pairs_of(shape) * (type == ScalarType::Float64 ? 8 : 4);
}

cudaError_t add_shares(ScalarType type, const ConvShape& shape, int64_t banks, int orbits, int64_t shares,
                       const void* workspace, void* grad_weight, cudaStream_t stream) {
  return dispatch(type, [&](auto number) {
    using T = decltype(number);
    const int order = static_cast<int>(shape.order());
    const int64_t numbers = banks * orbits * order * pairs_of(shape);
    const Layout layout{shape.group->matrices, order,  shape.size, shape.lifting,
                        pairs_of(shape),       orbits, numbers,    shares};
    LAUNCH(add_shares_kernel<T>, static_cast<unsigned>(divided(numbers, kNumbers)), dim3(kNumbers, kAdders), 0, stream,
           layout, static_cast<const accumulate_t<T>*>(workspace), static_cast<T*>(grad_weight));
    return cudaGetLastError();
  });
}

}  // namespace gconv::cuda
