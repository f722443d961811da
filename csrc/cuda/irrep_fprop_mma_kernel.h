// A warp makes MT · 16 pixels × NT · 8 output fields of all |P| elements. It reads the |P| shifted tiles of x straight
// into the registers of mma's A operand, goes through the butterflies there, and multiplies each plane by its plane of Ψ̂,
// which the warps of a block share through shared memory. The sums of every plane stay in registers, are transformed back
// there and written. Included by one file for each type, to be compiled at the same time.
#pragma once

#include "irrep_fprop_mma.h"
#include "irrep_fprop_mma_filter.h"
#include "irrep_fprop_staged_kernel.h"
#include "irrep_fprop_steps.h"
#include "irrep_fprop_tap_reads.h"
#include "irrep_fprop_tile.h"
#include "mma_pixels.h"

namespace gconv::cuda {
namespace {

// Plain: x and y lie so that a thread's neighbours are one vector, and x counts as it is. Any: whatever else there is,
// but for relaxed weights on the output, for which the sums are kept twice.
enum class Form { Plain, Any, RelaxedOutput };

constexpr int kStages = 4;

template <typename T, typename Group, int MT, int NT, Form kForm>
struct Tile {
  static constexpr int order = Group::table.order, kColumns = 8 * NT, kPixels = kWarps * MT * 16;
  using X = uint32_t[order][MT][4];
  using Sums = float[order][MT][NT][4];
  using Walk = typename MmaFilter<T, Group, NT>::Walk;

  const Problem<T>& p;
  const Place& place;
  TapReads<T, Group, 2 * MT, std::conditional_t<kForm == Form::Plain, int, int64_t>, false> reads;

  __device__ Tile(const Problem<T>& p, const Place& place)
      : p(p), place(place), reads(p, place, lane_field(), [](int i) { return MmaPixels<T, MT>::index(i / 2, i % 2); }) {
  }

  __device__ void load(const Walk& step, X& x) {
    if (step.is_first()) reads.find(p, place, step.tap);
    for_each_index<order>([&](auto g) {
      if constexpr (kForm == Form::Plain) {
        load<kNeighbours>(g, step, 0, x[g]);
      } else {
        load_any(g, step, 0, x[g]);
        if (p.masked) {
          uint32_t activated[MT][4];
          load_any(g, step, p.mask_offset, activated);
          MmaPixels<T, MT>::mask(activated, x[g]);
        }
        if (p.relax_input) scale<T>(widen(p.relaxed_weight[int64_t{step.bank} * order + g]), x[g]);
        __syncwarp();  // so that the loads of all planes at once do not take all registers
      }
    });
  }

  __device__ static void store(const Problem<T>& p, const Place& place, Sums& y) {
    store_tile<T, order, MT, NT, kForm == Form::Plain>(p, place, y);
  }

 private:
  static constexpr int kNeighbours = Operand<T>::kNeighbours;
  __device__ static int lane_field() { return static_cast<int>(threadIdx.x % 4) * kNeighbours; }

  // Of one element, at `beside` from x.
  template <int Width>
  __device__ __forceinline__ void load(int g, const Walk& step, int64_t beside, uint32_t (&x)[MT][4]) const {
    const auto offset = reads.offset[g] + (kForm == Form::Plain ? step.field : step.field * p.x_strides.field + beside);
    const int fields = p.in_fields - step.field - lane_field();
#pragma unroll
    for (int i = 0; i < 2 * MT; ++i)
      load_neighbours<Width>(reads.from[i], offset, p.x_strides.field, reads.counts(g, i) ? fields : 0, x[i / 2][i % 2],
                             x[i / 2][i % 2 + 2]);
  }
  __device__ __forceinline__ void load_any(int g, const Walk& step, int64_t beside, uint32_t (&x)[MT][4]) const {
    if (p.x_width == kNeighbours)
      load<kNeighbours>(g, step, beside, x);
    else if (kNeighbours > 2 && p.x_width == 2)
      load<2>(g, step, beside, x);
    else
      load<1>(g, step, beside, x);
  }
};

// Of a multiprocessor at once; a third where the registers suffice.
template <typename T, typename Group, int NT>
constexpr int kBlocks = Group::table.order <= 2 && Group::table.order * NT * sizeof(T) <= 16 ? 3 : 2;

template <typename T, typename Group, int MT, int NT, Form kForm>
__global__ void __launch_bounds__(kThreads, kBlocks<T, Group, NT>)
    irrep_fprop_mma_kernel(const __grid_constant__ Problem<T> p) {
  using Tile = Tile<T, Group, MT, NT, kForm>;
  DYN_SHARED(shared);
  auto* filters = reinterpret_cast<typename MmaFilter<T, Group, NT>::Filter*>(shared);  // of each stage
  T* weight = reinterpret_cast<T*>(filters + kStages);  // where the block transforms it itself

  const Place place(p, blockIdx.x, Tile::kPixels, Tile::kColumns);
  if (place.first_image >= p.batch) return;

  Tile tile(p, place);
  const MmaFilter<T, Group, NT> filter(p, place);
  if (p.weight.numbers) filter.fetch(weight);
  typename Tile::Sums sums = {}, total = {};
  typename Tile::X x = {};
  typename Tile::Walk copied(p, place), read(p, place);
  for (int step = 1 - kStages;; ++step) {
    if (step >= 0) {
      const int bank = read.bank;
      const bool more = read.next();
      if (kForm == Form::RelaxedOutput && step > 0 && read.bank != bank) {
        add_bank<Group>(p.relaxed_weight + int64_t{bank} * Tile::order, sums, total);
      }
      if (!more) break;
      tile.load(read, x);
      cp_async_wait<kStages - 2>();
      __syncthreads();  // this step's filter has come for all, and all are through with that of the step before
    }
    if (copied.next()) filter.make(copied, weight, filters[(step + kStages - 1) % kStages]);
    cp_async_commit();
    if (step < 0) continue;
    transform_tiles<T, Group>(x);
    filter.multiply(x, filters[step % kStages], sums);
  }
  // Found again, so that no registers hold it through the loop.
  const Place end(p, block_index(), Tile::kPixels, Tile::kColumns);
  if constexpr (kForm == Form::RelaxedOutput) {
    Tile::store(p, end, total);
  } else {
    transform_back<Group>(sums);
    Tile::store(p, end, sums);
  }
}

template <typename T, typename Group, int MT, int NT, Form kForm>
cudaError_t launch_tiles(Problem<T> p, cudaStream_t stream) {
  using Tile = Tile<T, Group, MT, NT, kForm>;
  const unsigned blocks = count_blocks(p, Tile::kPixels, Tile::kColumns);
  if (!blocks) return cudaErrorNotSupported;
  constexpr int kFilterBytes = kStages * sizeof(typename MmaFilter<T, Group, NT>::Filter);
  static_assert(kFilterBytes <= kUnaskedSharedBytes && kFilterBytes + kMostWeightBytes <= kMostSharedBytes);
  const auto kernel = irrep_fprop_mma_kernel<T, Group, MT, NT, kForm>;
  const int shared_bytes = kFilterBytes + static_cast<int>(p.weight.shared_bytes(Tile::kColumns));
  if (shared_bytes > kUnaskedSharedBytes)
    if (const cudaError_t error =
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes))
      return error;
  LAUNCH(kernel, blocks, kThreads, shared_bytes, stream, p);
  return cudaGetLastError();
}

// Tiles as large as the registers hold, and no larger than the layer.
template <typename T, typename Group>
cudaError_t launch(const IrrepFpropParams& params, const Problem<T>& p, cudaStream_t stream) {
  constexpr int order = Group::table.order, kRows = order == 8 ? 1 : 2;
  if constexpr (order == 4 && sizeof(T) == 2) {  // by arithmetic, not measured; of 8 elements less is gained
    const cudaError_t error = p.relaxed_weight && !p.relax_input
                                  ? launch_staged<T, Group, 2, 1, true>(params, p, stream)
                              : p.out_fields <= 8 ? launch_staged<T, Group, 2, 1, false>(params, p, stream)
                                                  : launch_staged<T, Group, 2, 2, false>(params, p, stream);
    if (error != cudaErrorNotSupported) return error;
  }
  // Of four, these would spill registers.
  constexpr int kMost = std::is_same_v<Group, GroupD2> || (order >= 4 && sizeof(T) == 4) ? 2 : 4;
  if (p.relaxed_weight && !p.relax_input) return launch_tiles<T, Group, kRows, 1, Form::RelaxedOutput>(p, stream);
  const bool plain = p.plain;
  if constexpr (order >= 4) {
    if (!plain && p.out_fields <= 8) return launch_tiles<T, Group, kRows, 1, Form::Any>(p, stream);
    if (plain && 8 < p.out_fields && p.out_fields <= 16)
      return launch_tiles<T, Group, kRows, 2, Form::Plain>(p, stream);
  }
  if (!plain) return launch_tiles<T, Group, kRows, 2, Form::Any>(p, stream);
  if (p.out_fields <= 8) return launch_tiles<T, Group, 2, 1, Form::Plain>(p, stream);
  return launch_tiles<T, Group, kRows, kMost, Form::Plain>(p, stream);
}

}  // namespace

template <typename T>
cudaError_t irrep_fprop_mma(const IrrepFpropParams& params, const void* transformed, cudaStream_t stream) {
  if (!coordinates_fit(params.shape)) return cudaErrorNotSupported;
  const Problem<T> p(params, transformed);
  return with_group(params.shape.group->name,
                    [&](auto group) { return launch<T, decltype(group)>(params, p, stream); });
}

}  // namespace gconv::cuda
