// Two warpgroups share Ψ̂'s planes of a step, which wgmma reads from shared memory; each multiplies 64 pixels, A being the
// planes of x in registers. The one may be a step ahead of the other, so that the tensor cores form the products of one
// while the other transforms. What the warps do beside products has to be little, or it takes longer than these: offsets
// are found once for each tap. Included by one file for each type, to be compiled at the same time.
#pragma once

#include <cstring>

#include "irrep_fprop_tap_reads.h"
#include "irrep_fprop_tile.h"
#include "irrep_fprop_wgmma.h"
#include "mma_pixels.h"
#include "warpgroup_matrix.h"

namespace gconv::cuda {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps, kPixels = 16 * kWarps, kStages = 4;

// What a thread reads of x: of two pixels, 4 · Depth neighbouring fields of every element at once, for Depth operands A.
template <typename T, typename Group, int Depth>
struct PixelReader {
  static constexpr int order = Group::table.order;
  using X = uint32_t[order][Depth][4];

  const Problem<T>& p;
  const Place& place;
  TapReads<T, Group, 2, int, true> reads;

  __device__ PixelReader(const Problem<T>& p, const Place& place)
      : p(p), place(place), reads(p, place, lane_field(), [](int half) { return MmaPixels<T, 1>::index(0, half); }) {}

  // Of all steps in turn.
  template <typename Step>
  __device__ __forceinline__ void load(const Step& step, X& x) {
    if (step.is_first()) reads.find(p, place, step.tap);
    const bool any = step.field + lane_field() < p.in_fields;
#pragma unroll
    for (int g = 0; g < order; ++g)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        uint32_t words[2 * Depth] = {};
        if (any && reads.counts(g, half)) read(reads.from[half] + (reads.offset[g] + step.field), words);
#pragma unroll
        for (int i = 0; i < 2 * Depth; ++i) x[g][i / 2][half + i % 2 * 2] = words[i];
      }
  }

 private:
  __device__ static int lane_field() { return static_cast<int>(threadIdx.x % 4) * 4 * Depth; }

  __device__ static void read(const T* numbers, uint32_t (&words)[2]) {
    const uint2 both = __ldg(reinterpret_cast<const uint2*>(numbers));
    words[0] = both.x, words[1] = both.y;
  }
  __device__ static void read(const T* numbers, uint32_t (&words)[4]) {
    const uint4 all = __ldg(reinterpret_cast<const uint4*>(numbers));
    words[0] = all.x, words[1] = all.y, words[2] = all.z, words[3] = all.w;
  }
};

// What a thread copies of Ψ̂: of every step, the same chunks of eight numbers.
template <typename T, typename Group, int Depth, int NT>
struct FilterCopier {
  static constexpr int order = Group::table.order, kFields = 16 * Depth;
  using Rows = SwizzledRows<8 * NT>;
  using Filter = T[order][Depth][16][8 * NT];
  static constexpr int kPlaneChunks = kFields * Rows::kChunks, kPlanes = kThreads / kPlaneChunks;  // at once
  static_assert(kThreads % kPlaneChunks == 0 && order % kPlanes == 0);

  template <typename Step>
  __device__ __forceinline__ static void copy(const Problem<T>& p, const Place& place, const Step& step, Filter& to) {
    const int chunk = threadIdx.x % Rows::kChunks, field = threadIdx.x / Rows::kChunks % kFields;
    const int first_plane = threadIdx.x / kPlaneChunks, column = place.first_out + 8 * chunk;
    const bool valid = column < p.out_fields && step.field + field < p.in_fields;
    const int64_t plane = int64_t{place.block * p.orbits + step.orbit} * order + first_plane;
    const T* from = p.transformed + (plane * p.in_fields + step.field + field) * p.filter_pitch + column;
    T* place_of = &to[first_plane][0][0][0] + Rows::place(row(field), chunk);
#pragma unroll
    for (int i = 0; i < order; i += kPlanes)
      cp_async_16(place_of + i * kFields * 8 * NT, from + i * (p.in_fields * p.filter_pitch), valid);
  }

 private:
  // Of B, where A has the field: a thread's neighbours are its numbers of one operand after the other.
  __device__ static int row(int field) {
    const int thread = field / (4 * Depth), pair = field % (4 * Depth) / 2;
    return pair / 2 * 16 + pair % 2 * 8 + thread * 2 + field % 2;
  }
};

template <typename T, typename Group, int Depth, int NT>
__global__ void __launch_bounds__(kThreads, 1) irrep_fprop_wgmma_kernel(const __grid_constant__ Problem<T> p) {
#ifdef GCONV_HAS_WGMMA
  using Reader = PixelReader<T, Group, Depth>;
  using Copier = FilterCopier<T, Group, Depth, NT>;
  constexpr int order = Group::table.order;
  DYN_SHARED(shared);
  auto* filter = reinterpret_cast<typename Copier::Filter*>(shared);  // of each stage
  auto* ready = reinterpret_cast<uint64_t*>(filter + kStages);

  const Place place(p, blockIdx.x, kPixels, 8 * NT);
  if (place.first_image >= p.batch) return;

  Reader reader(p, place);
  Steps<T, Group, Copier::kFields, true> ahead(p, place);  // whose filter is copied next
  const auto copy = [&](int step) {
    const bool more = ahead.next();
    if (more) Copier::copy(p, place, ahead, filter[step % kStages]);
    cp_async_commit();
    return more;
  };
  float sums[order][1][NT][4] = {};
  typename Reader::X x, next;
  bool more = copy(0);
  reader.load(ahead, next);
  bool another = copy(1);
  // What it counts in a step: the next step's filter has come, and the products of the step before are formed.
  if (threadIdx.x == 0) mbarrier_init(ready, kThreads);
  __syncthreads();
  cp_async_wait<1>();
  fence_proxy_async();
  mbarrier_arrive(ready);

  for (int step = 0; more; ++step) {
    std::memcpy(x, next, sizeof x);
    transform_tiles<T, Group>(x);
    cp_async_wait<0>();
    fence_proxy_async();  // which would wait for the loads below
    more = another;
    if (more) reader.load(ahead, next);
    mbarrier_wait(ready, step % 2);
    mbarrier_arrive(ready);
    wgmma_fence();
#pragma unroll
    for (int depth = 0; depth < Depth; ++depth)
      for_each_product<Group>([&](auto y, auto from, auto w, auto negated) {
        const uint64_t rows = Copier::Rows::descriptor(filter[step % kStages][w][depth]);
        wgmma_m64k16<T, negated>(sums[y][0], x[from][depth], rows);
      });
    wgmma_commit();
    another = more && copy(step + 2);  // where all have formed the products of step - 2
    wgmma_wait();
  }
  // Found again, so that no registers hold it through the loop.
  const Place end(p, block_index(), kPixels, 8 * NT);
  transform_back<Group>(sums);
  store_tile<T, order, 1, NT>(p, end, sums);
#else
  __trap();  // wgmma_allowed
#endif
}

template <typename T, typename Group, int Depth, int NT>
cudaError_t launch_tiles(Problem<T> p, cudaStream_t stream) {
  const unsigned blocks = count_blocks(p, kPixels, 8 * NT);
  if (!blocks) return cudaErrorNotSupported;
  constexpr int kSharedBytes = kStages * sizeof(typename FilterCopier<T, Group, Depth, NT>::Filter) + sizeof(uint64_t);
  const auto kernel = irrep_fprop_wgmma_kernel<T, Group, Depth, NT>;
  if (kSharedBytes > kUnaskedSharedBytes)
    if (const cudaError_t error =
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes))
      return error;
  LAUNCH(kernel, blocks, kThreads, kSharedBytes, stream, p);
  return cudaGetLastError();
}

}  // namespace

template <typename T>
cudaError_t irrep_fprop_wgmma(const IrrepFpropParams& params, const void* transformed, cudaStream_t stream) {
  const Problem<T> p(params, transformed);
  if (params.shape.group->name == "D4") return launch_tiles<T, GroupD4, 1, 4>(p, stream);
  return p.out_fields <= 32 ? launch_tiles<T, GroupC4, 2, 4>(p, stream) : launch_tiles<T, GroupC4, 2, 8>(p, stream);
}

}  // namespace gconv::cuda
