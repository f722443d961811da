// Two warpgroups share Ψ̂'s planes of a step, which wgmma reads from shared memory; each multiplies 64 pixels, A being the
// planes of x in registers. The one may be a step ahead of the other, so that the tensor cores form the products of one
// while the other transforms. What the warps do beside products has to be little, or it takes longer than these: offsets
// are found once for each tap. Included by one file for each type, to be compiled at the same time.
#pragma once

#include <cstring>

#include "irrep_fprop_tile.h"
#include "irrep_fprop_wgmma.h"
#include "mma_pixels.h"
#include "tap_reads.h"
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
  Steps<T, Group, 16 * Depth, true> step;
  TapReads<T, Group, 2, int, true> reads;

  __device__ PixelReader(const Problem<T>& p, const Place& place)
      : p(p), place(place), step(p, place),
        reads(p, place, lane_field(), [](int half) { return MmaPixels<T, 1>::index(0, half); }) {}

  // Of the next step, if there is one.
  __device__ __forceinline__ bool load(X& x) {
    if (!step.next()) return false;
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
    return true;
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

  const Problem<T>& p;
  const T* from;
  int field, to;  // what is copied first, and its place in a Filter
  bool is_column;

  __device__ FilterCopier(const Problem<T>& p, const Place& place) : p(p) {
    const int chunk = threadIdx.x % Rows::kChunks, plane = threadIdx.x / kPlaneChunks;
    field = threadIdx.x / Rows::kChunks % kFields;
    to = plane * kFields * 8 * NT + Rows::place(row(field), chunk);
    is_column = place.first_out + 8 * chunk < p.out_fields;
    from = p.transformed + place.first_out + 8 * chunk +
           ((int64_t{place.block} * p.orbits * order + plane) * p.in_fields + field) * p.out_fields;
  }

  __device__ void copy(Filter& filter) const {
    const bool valid = is_column && field < p.in_fields;
    const int plane_stride = p.in_fields * p.out_fields;
#pragma unroll
    for (int plane = 0; plane < order; plane += kPlanes)
      cp_async_16(&filter[0][0][0][0] + to + plane * kFields * 8 * NT, from + plane * plane_stride, valid);
  }

  __device__ void advance() {
    field += kFields, from += kFields * p.out_fields;
    const int first = threadIdx.x / Rows::kChunks % kFields;
    if (field - first < p.in_fields) return;
    from += (order * p.in_fields - (field - first)) * p.out_fields;
    field = first;
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
  Copier copier(p, place);
  const int steps = p.size * p.size * ((p.in_fields - 1) / Copier::kFields + 1);
  const auto copy = [&](int step) {
    if (step < steps) {
      copier.copy(filter[step % kStages]);
      copier.advance();
    }
    cp_async_commit();
  };
  copy(0);
  copy(1);
  // What it counts in a step: the next step's filter has come, and the products of the step before are formed.
  if (threadIdx.x == 0) mbarrier_init(ready, kThreads);
  __syncthreads();
  cp_async_wait<1>();
  fence_proxy_async();
  mbarrier_arrive(ready);

  float sums[order][1][NT][4] = {};
  typename Reader::X x, next;
  bool more = reader.load(next);
  for (int step = 0; more; ++step) {
    std::memcpy(x, next, sizeof x);
    transform_tiles<T, Group>(x);
    cp_async_wait<0>();
    fence_proxy_async();  // which would wait for the loads below
    more = reader.load(next);
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
    copy(step + 2);  // where all have formed the products of step - 2
    wgmma_wait();
  }
  // Found again, so that no registers hold it through the loop.
  const Place end(p, block_index(), kPixels, 8 * NT);
  transform_back<Group>(sums);
  store_tile<T, order, 1, NT, true>(p, end, sums);
#else
  __trap();  // has_wgmma
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
