// Ψ̂ of all taps in shared memory, for a block of irrep_fprop_staged_kernel: transformed from ψ, or copied.
#pragma once

#include <algorithm>

#include "divisor.h"
#include "irrep_fprop_mma_filter.h"
#include "map_layout.h"

namespace gconv::cuda {
namespace {

// How a block shares the work, and ψ in shared memory, [bank][pair of fields as in device memory][position].
struct StagedFilterLayout {
  template <typename T>
  StagedFilterLayout(const Weight<T>& weight, int tile_columns)
      : column_pairs((std::min(tile_columns, weight.out_fields) + 1) / 2), in_fields(weight.in_fields),
        taps(weight.pair.size * weight.pair.size), numbers(weight.in_fields * weight.out_fields * weight.pair_numbers),
        bank_numbers((numbers + 7) / 8 * 8),
        width(static_cast<int>(widest(reinterpret_cast<uintptr_t>(weight.numbers) / sizeof(T) | numbers, 8))) {
    static_assert(sizeof(T) == 2);
  }

  Divisor column_pairs, in_fields, taps;
  int numbers, bank_numbers;  // of one block of fields of one bank, with and without what aligns the next
  int width;                  // numbers of ψ that are aligned together
};

template <typename T, typename Group, int NT>
struct StagedFilter {
  static constexpr int order = Group::table.order, kFields = 16, kColumns = 8 * NT;
  struct alignas(16) Planes {
    typename MmaFilter<T, Group, NT>::Filter planes;
    T gap[8];  // so that threads that write to different taps meet different banks
  };

  const Problem<T>& p;
  const Place& place;
  const StagedFilterLayout& layout;

  // ψ as `transform` reads it, without waiting.
  __device__ __forceinline__ void fetch(T* weight) const {
    if (layout.width == 8)
      fetch<8>(weight);
    else if (layout.width > 1)
      fetch<2>(weight);
    else
      fetch<1>(weight);
  }

  // From ψ in shared memory.
  __device__ __forceinline__ void transform(const T* weight, Planes* filters) const {
    const Share share(layout.taps);
    int positions[order];
    for_each_index<order>([&](auto g) {
      const Tap to = moved<Group, decltype(g)::value>({share.tap / p.size, share.tap % p.size}, p.size);
      positions[g] = p.weight.pair.position(g, Group::group.inverse[g], to.row * p.size + to.column, share.tap);
    });
    const int in_step = p.weight.pair_numbers * (p.weight.pair.adjoint ? p.out_fields : 1);
    const int out_step = p.weight.pair_numbers * (p.weight.pair.adjoint ? 1 : p.in_fields);
    for_each_pair(share, [&](int bank, int in, int column, bool two) {
      const T* pair = weight + bank * layout.bank_numbers + in * in_step + (place.first_out + column) * out_step;
      float numbers[2][order];
#pragma unroll
      for (int j = 0; j < 2; ++j)
        transform_weight<Group>(
            pair + (two ? j * out_step : 0), false, [&](auto g) { return positions[g]; }, numbers[j]);
#pragma unroll
      for (int plane = 0; plane < order; ++plane) {
        const auto both = narrow_pair<T>(numbers[0][plane], numbers[1][plane]);
        std::memcpy(&filters[bank * share.taps + share.tap].planes[plane][in][column], &both, sizeof both);
      }
    });
    zero(share, filters);
  }

  // From Ψ̂, without waiting.
  __device__ __forceinline__ void copy(Planes* filters) const {
    const Share share(layout.taps);
    const int plane_numbers = p.in_fields * p.out_fields;
    for_each_pair(share, [&](int bank, int in, int column, bool two) {
      const int64_t orbit = (int64_t{bank} * p.groups + place.block) * p.orbits + share.tap;
      const T* from = p.transformed + orbit * order * plane_numbers + in * p.out_fields + place.first_out + column;
      auto& planes = filters[bank * share.taps + share.tap].planes;
#pragma unroll
      for (int plane = 0; plane < order; ++plane, from += plane_numbers) {
        T* to = &planes[plane][in][column];
        if (p.filter_width > 1)
          cp_async_4(to, from);
        else
          to[0] = from[0], to[1] = from[two];
      }
    });
    zero(share, filters);
  }

 private:
  // Of the work that is a thread's: one tap, and of its pairs of columns each `step`th from `first`.
  struct Share {
    int taps, tap, first, step;

    __device__ explicit Share(const Divisor& tap_count) : taps(tap_count.value) {
      step = tap_count.quotient(kThreads);
      first = tap_count.quotient(threadIdx.x);
      tap = threadIdx.x - first * taps;
      if (first >= step) first = kThreads * kThreads * kThreads;  // nothing
    }
  };

  // function(bank, in field, column, whether there is the next column too); if not, what is in it does not matter, as no
  // more than its own results depend on it.
  template <typename Function>
  __device__ __forceinline__ void for_each_pair(const Share& share, Function function) const {
    const int columns = min(kColumns, p.out_fields - place.first_out);
    const int count = p.banks * p.in_fields * layout.column_pairs.value;
#pragma unroll 1
    for (int i = share.first; i < count; i += share.step) {
      const int row = layout.column_pairs.quotient(i), column = 2 * (i - row * layout.column_pairs.value);
      const int bank = layout.in_fields.quotient(row), in = row - bank * p.in_fields;
      if (column < columns) function(bank, in, column, column + 1 < columns);
    }
  }

  // The in fields that there are not.
  __device__ __forceinline__ void zero(const Share& share, Planes* filters) const {
    for (int bank = 0; bank < p.banks; ++bank)
#pragma unroll 1
      for (int in = p.in_fields + share.first; in < kFields; in += share.step)
#pragma unroll
        for (int i = 0; i < order * NT; ++i)
          *reinterpret_cast<uint4*>(&filters[bank * share.taps + share.tap].planes[i / NT][in][i % NT * 8]) = uint4{};
  }

  template <int Width>
  __device__ __forceinline__ void fetch(T* weight) const {
    for (int bank = 0; bank < p.banks; ++bank) {
      const T* from = p.weight.numbers + (int64_t{bank} * p.groups + place.block) * layout.numbers;
      T* to = weight + bank * layout.bank_numbers;
#pragma unroll 1
      for (int i = threadIdx.x * Width; i < layout.numbers; i += kThreads * Width)
        if constexpr (Width == 8)
          cp_async_16(to + i, from + i);
        else if constexpr (Width == 2)
          cp_async_4(to + i, from + i);
        else
          to[i] = from[i];
    }
  }
};

}  // namespace
}  // namespace gconv::cuda
