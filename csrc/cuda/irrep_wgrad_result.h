// Where the sums of irrep_wgrad go: into shares, as wgrad_shares.h has them, or straight to the gradient.
#pragma once

#include "fourier.h"
#include "irrep_wgrad_plan.h"
#include "scalar_types.h"
#include "wgrad_shares.h"

namespace gconv::cuda {

template <typename T>
struct WgradResult {
  WgradResult(const IrrepWgradParams& params, const WgradPlan& plan)
      : matrices(params.shape.group->matrices), size(params.shape.size),
        in_fields(static_cast<int>(params.shape.in_fields)), out_fields(static_cast<int>(params.shape.out_fields)),
        orbits(plan.orbits), blocks(static_cast<int>(params.shape.groups)), banks(static_cast<int>(params.banks)),
        grad_weight(static_cast<T*>(params.grad_weight)),
        shares(plan.written_directly ? nullptr : static_cast<accumulate_t<T>*>(params.workspace)) {}

  std::array<Matrix, kMaxOrder> matrices;
  int size, in_fields, out_fields, orbits, blocks, banks;
  T* grad_weight;
  accumulate_t<T>* shares;  // [share, banks, orbit, g, pair of fields], before the division by stabilisers; or nullptr
};

// Which part of the work is a warp's.
struct WgradPart {
  int orbit, in_first, out_first, block, bank, share;
  bool active;  // whether there is a job for it
};

// The relaxed weights [|P|] of a bank by which x, or dy, is multiplied; nullptr: by none. p has all relaxed weights, and
// whether they are x's.
template <typename Problem>
__device__ auto wgrad_scale(const Problem& p, int bank, int order, bool input) {
  return p.relaxed_weight && input == p.relax_input ? p.relaxed_weight + bank * order : nullptr;
}

// Sums in all planes of neighbouring in fields and one out field, as gradients; nothing beyond the last field.
template <typename Group, int Neighbours, typename T>
__device__ __forceinline__ void store_gradients(const WgradResult<T>& result, const WgradPart& part, int tap,
                                                int in_field, int out_field,
                                                accumulate_t<T> (&f)[Neighbours][Group::table.order]) {
  constexpr int order = Group::table.order;
#pragma unroll
  for (int i = 0; i < Neighbours; ++i) {
    for_each_index<order>([&](auto plane) {
      constexpr double factor = inverse_scales<Group>()[decltype(plane)::value];
      f[i][plane] *= static_cast<accumulate_t<T>>(factor);
    });
    inverse_fourier<Group>(f[i]);
  }
  if (in_field >= result.in_fields || out_field >= result.out_fields) return;
  const int taps = result.size * result.size;
  const int64_t pairs = int64_t{result.blocks} * result.out_fields * result.in_fields;
  const int64_t pair = (int64_t{part.block} * result.out_fields + out_field) * result.in_fields + in_field;
  const int64_t slot = ((int64_t{part.share} * result.banks + part.bank) * result.orbits + part.orbit) * order;
  const bool whole = result.in_fields % Neighbours == 0;
#pragma unroll
  for (int g = 0; g < order; ++g) {
    if (result.shares && whole) {
      struct alignas(Neighbours * sizeof(accumulate_t<T>)) Numbers {
        accumulate_t<T> number[Neighbours];
      } numbers;
#pragma unroll
      for (int i = 0; i < Neighbours; ++i) numbers.number[i] = f[i][g];
      *reinterpret_cast<Numbers*>(result.shares + (slot + g) * pairs + pair) = numbers;
    } else {
#pragma unroll
      for (int i = 0; i < Neighbours; ++i) {
        if (!whole && in_field + i >= result.in_fields) break;
        if (result.shares)
          result.shares[(slot + g) * pairs + pair + i] = f[i][g];
        else
          result.grad_weight[((part.bank * pairs + pair + i) * order + g) * taps +
                             moved_tap(result.matrices[g], tap, result.size)] = narrow<T>(f[i][g]);
      }
    }
  }
}

}  // namespace gconv::cuda
