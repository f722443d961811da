#include "expand_filter.h"

#include <algorithm>

#include "scalar_types.h"

namespace gconv::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostShares = 64;  // partial sums of each number of grad_relaxed_weight

// FilterShape for the device: the group's tables themselves, not a pointer to the host's.
struct Bank {
  explicit Bank(const FilterShape& shape, RelaxOn relax_on)
      : group(*shape.group), banks(shape.banks), pairs(shape.pairs()), in_fields(shape.in_fields),
        block(static_cast<int>(shape.block())), taps(static_cast<int>(shape.taps())), size(shape.size),
        lifting(shape.lifting), relax_input(relax_on == RelaxOn::Input) {}

  PointGroup group;
  int64_t banks, pairs, in_fields;
  int block, taps, size;
  bool lifting, relax_input;

  __device__ int moved(int u, int position) const { return moved_position(group, lifting, size, u, position); }
  // The offset of position 0 of F[o, u, c]; pair is o · C + c.
  __device__ int64_t filter_row(int64_t pair, int u) const {
    const int64_t o = pair / in_fields, c = pair % in_fields;
    return ((o * group.order + u) * in_fields + c) * block;
  }
  // The element that indexes the relaxed weights of position (v, t) in the filter of u.
  __device__ int relaxed_element(int u, int filter_position) const { return relax_input ? filter_position / taps : u; }
};

// A thread a number of the filter.
template <typename T>
__global__ void __launch_bounds__(kThreads) expand_filter_kernel(const __grid_constant__ Bank bank, const T* weight,
                                                                 const T* relaxed_weight, T* filter, int64_t numbers) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= numbers) return;
  const int order = bank.group.order, position = static_cast<int>(i % bank.block);
  const int64_t row = i / bank.block, c = row % bank.in_fields, o = row / bank.in_fields / order;
  const int u = static_cast<int>(row / bank.in_fields % order);
  const int64_t from = (o * bank.in_fields + c) * bank.block + bank.moved(bank.group.inverse[u], position);
  accumulate_t<T> sum = 0;
  if (relaxed_weight) {
    const int element = bank.relaxed_element(u, position);
    for (int64_t l = 0; l < bank.banks; ++l)
      sum += widen(relaxed_weight[l * order + element]) * widen(weight[l * bank.pairs * bank.block + from]);
  } else {
    sum = widen(weight[from]);
  }
  filter[i] = narrow<T>(sum);
}

// A thread a number of the gradient, which gathers from the filters of all elements.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    grad_weight_kernel(const __grid_constant__ Bank bank, const T* relaxed_weight, const T* grad_filter, T* grad_weight,
                       int64_t numbers) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= numbers) return;
  const int order = bank.group.order, position = static_cast<int>(i % bank.block);
  const int64_t pair = i / bank.block % bank.pairs, l = i / bank.block / bank.pairs;
  accumulate_t<T> sum = 0;
  for (int u = 0; u < order; ++u) {
    const int moved = bank.moved(u, position);
    const accumulate_t<T> gradient = widen(grad_filter[bank.filter_row(pair, u) + moved]);
    sum += relaxed_weight ? widen(relaxed_weight[l * order + bank.relaxed_element(u, moved)]) * gradient : gradient;
  }
  grad_weight[i] = narrow<T>(sum);
}

// The sum over all threads of the block, in an order of its own; for thread 0 alone.
__device__ double block_sum(double sum) {
  __shared__ double warp_sums[kThreads / 32];
  for (int step = 16; step; step /= 2) sum += __shfl_down_sync(~0u, sum, step);
  if (threadIdx.x % 32 == 0) warp_sums[threadIdx.x / 32] = sum;
  __syncthreads();
  for (int warp = 1; warp < kThreads / 32; ++warp) sum += warp_sums[warp];
  return sum;
}

// Block (x, y) sums share y of the numbers of bank l that relaxed weight [l, a] multiplies; x is l · |P| + a.
// Every (w, s) is multiplied by it once, in the filter of one u.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    grad_relaxed_weight_kernel(const __grid_constant__ Bank bank, const T* weight, const T* grad_filter,
                               double* shares) {
  const int order = bank.group.order, element = blockIdx.x % order;
  const int64_t l = blockIdx.x / order, numbers = bank.pairs * bank.block;
  accumulate_t<T> sum = 0;
  for (int64_t i = int64_t{blockIdx.y} * kThreads + threadIdx.x; i < numbers; i += int64_t{gridDim.y} * kThreads) {
    const int position = static_cast<int>(i % bank.block);
    const int u = bank.relax_input ? bank.group.product[element][bank.group.inverse[position / bank.taps]] : element;
    const int64_t to = bank.filter_row(i / bank.block, u) + bank.moved(u, position);
    sum += widen(weight[l * numbers + i]) * widen(grad_filter[to]);
  }
  const double total = block_sum(sum);
  if (threadIdx.x == 0) shares[int64_t{blockIdx.y} * gridDim.x + blockIdx.x] = total;
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    add_shares_kernel(const double* shares, int count, T* grad_relaxed_weight, int64_t numbers) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= numbers) return;
  double sum = 0;
  for (int share = 0; share < count; ++share) sum += shares[share * numbers + i];
  grad_relaxed_weight[i] = narrow<T>(static_cast<accumulate_t<T>>(sum));
}

unsigned blocks_for(int64_t numbers) { return static_cast<unsigned>((numbers + kThreads - 1) / kThreads); }

// Of the shape alone, so that the sums are the same on every device.
int64_t share_count(const FilterShape& shape) {
  return std::min<int64_t>(kMostShares, blocks_for(shape.pairs() * shape.block()));
}

}  // namespace

cudaError_t expand_filter(const ExpandFilterParams& p, cudaStream_t stream) {
  return dispatch(p.type, [&](auto number) {
    using T = decltype(number);
    const int64_t numbers = p.shape.pairs() * p.shape.elements() * p.shape.block();
    LAUNCH(expand_filter_kernel<T>, blocks_for(numbers), kThreads, 0, stream, Bank(p.shape, p.relax_on),
           static_cast<const T*>(p.weight), static_cast<const T*>(p.relaxed_weight), static_cast<T*>(p.filter),
           numbers);
    return cudaGetLastError();
  });
}

int64_t expand_filter_backward_workspace(const FilterShape& shape) {
  return share_count(shape) * shape.banks * shape.elements();
}

cudaError_t expand_filter_backward(const ExpandFilterBackwardParams& p, cudaStream_t stream) {
  return dispatch(p.type, [&](auto number) {
    using T = decltype(number);
    const Bank bank(p.shape, p.relax_on);
    const T* grad_filter = static_cast<const T*>(p.grad_filter);
    if (p.grad_weight) {
      const int64_t numbers = p.shape.banks * p.shape.pairs() * p.shape.block();
      LAUNCH(grad_weight_kernel<T>, blocks_for(numbers), kThreads, 0, stream, bank,
             static_cast<const T*>(p.relaxed_weight), grad_filter, static_cast<T*>(p.grad_weight), numbers);
      if (const cudaError_t error = cudaGetLastError()) return error;
    }
    if (p.grad_relaxed_weight) {
      const int64_t numbers = p.shape.banks * p.shape.elements(), shares = share_count(p.shape);
      LAUNCH(grad_relaxed_weight_kernel<T>, dim3(numbers, shares), kThreads, 0, stream, bank,
             static_cast<const T*>(p.weight), grad_filter, p.workspace);
      LAUNCH(add_shares_kernel<T>, blocks_for(numbers), kThreads, 0, stream, p.workspace, static_cast<int>(shares),
             static_cast<T*>(p.grad_relaxed_weight), numbers);
      if (const cudaError_t error = cudaGetLastError()) return error;
    }
    return cudaSuccess;
  });
}

}  // namespace gconv::cuda
