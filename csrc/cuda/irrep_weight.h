// From ψ to Ψ̂: for irrep_transform_weight, which does it once for all, and for the kernels whose blocks of threads
// transform what they multiply by themselves. The bits are the same.
#pragma once

#include <algorithm>

#include "fourier.h"
#include "irrep.h"
#include "scalar_types.h"
#include "warp_matrix.h"

namespace gconv::cuda {

// The numbers [w, tap] that ψ has for one pair of fields.
struct WeightPair {
  int size;
  bool lifting, adjoint;

  __host__ __device__ int numbers(int order) const { return (lifting ? 1 : order) * size * size; }
  // Which of them is Ψ[g] of the orbit that starts with `tap`; moved is g·tap.
  __device__ int position(int g, int inverse, int moved, int tap) const {
    const int taps = size * size;
    if (lifting) return moved;
    // The adjoint is ψ'[c, o, a, b] = ψ[o, c, a⁻¹, −a⁻¹b], and here b is a·tap.
    return adjoint ? inverse * taps + taps - 1 - tap : g * taps + moved;
  }
};

// The planes of one pair of fields and one orbit, position(Index<g>()) being that of Ψ[g] in `pair`; not yet rounded.
template <typename Fourier, typename T, typename Position>
__device__ __forceinline__ void transform_weight(const T* pair, bool lifting, Position position,
                                                 accumulate_t<T> (&f)[Fourier::table.order]) {
  constexpr int order = Fourier::table.order;
  for_each_index<order>([&](auto g) { f[g] = widen(pair[position(g)]); });
  if (lifting) {  // a tap that several elements leave alone is met as often
    int stabiliser = 0;
    for_each_index<order>([&](auto g) { stabiliser += position(g) == position(Index<0>()); });
    for (; stabiliser > 1; stabiliser /= 2)  // a power of two
      for_each_index<order>([&](auto g) { f[g] = product(f[g], accumulate_t<T>(0.5)); });
  }
  fourier<Fourier>(f);
}

// ψ as blocks of threads read it that transform it themselves: into shared memory, all that a tile of out fields needs.
template <typename T>
struct Weight {
  const T* numbers;  // nullptr: they are given Ψ̂
  WeightPair pair;
  int banks, groups, in_fields, out_fields;
  int pair_numbers;
  int pitch;      // from pair to pair in shared memory
  bool by_words;  // whether a pair is whole words of 4 bytes

  int64_t shared_bytes(int tile_columns) const {
    return numbers ? int64_t{banks} * in_fields * std::min(tile_columns, out_fields) * pitch * sizeof(T) : 0;
  }

  // To shared [bank][in field][column], the columns being out fields. It is there after cp_async_wait and a barrier.
  __device__ __forceinline__ void fetch(int group, int first_out, int columns, T* shared) const {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    const int64_t in_step = int64_t{pair_numbers} * (pair.adjoint ? out_fields : 1);
    const int64_t out_step = int64_t{pair_numbers} * (pair.adjoint ? 1 : in_fields);
    const int words = pair_numbers * static_cast<int>(sizeof(T)) / 4;
    for (int bank = 0; bank < banks; ++bank) {
      const int64_t pairs = (int64_t{bank} * groups + group) * in_fields * out_fields;
      const T* from_bank = numbers + pairs * pair_numbers + first_out * out_step;
      for (int in = 0; in < in_fields; ++in, shared += columns * pitch)
        for (int column = warp; column < columns; column += warps) {
          const T* from = from_bank + in * in_step + column * out_step;
          T* to = shared + column * pitch;
          if (by_words)
            for (int i = lane; i < words; i += 32)
              cp_async_4(reinterpret_cast<uint32_t*>(to) + i, reinterpret_cast<const uint32_t*>(from) + i);
          else
            for (int i = lane; i < pair_numbers; i += 32) to[i] = from[i];
        }
    }
    cp_async_commit();
  }
  __device__ __forceinline__ const T* fetched(const T* shared, int bank, int in, int column, int columns) const {
    return shared + ((bank * in_fields + in) * columns + column) * pitch;
  }
};

// An odd number of words, so that threads that read one position of neighbouring pairs read from different banks.
inline int weight_pitch(int pair_numbers, int number_bytes) {
  const int of_word = std::max(1, 4 / number_bytes);
  return ((pair_numbers + of_word - 1) / of_word | 1) * of_word;
}

// transformed: Ψ̂, or nullptr where the blocks are to transform params.weight.
template <typename T>
Weight<T> weight_of(const IrrepFpropParams& params, const void* transformed) {
  const ConvShape& s = params.shape;
  Weight<T> weight;
  weight.numbers = transformed ? nullptr : static_cast<const T*>(params.weight);
  weight.pair = {s.size, s.lifting, params.adjoint};
  weight.banks = static_cast<int>(params.banks), weight.groups = static_cast<int>(s.groups);
  weight.in_fields = static_cast<int>(s.in_fields), weight.out_fields = static_cast<int>(s.out_fields);
  weight.pair_numbers = weight.pair.numbers(static_cast<int>(s.order()));
  weight.pitch = weight_pitch(weight.pair_numbers, sizeof(T));
  weight.by_words = weight.pair_numbers * sizeof(T) % 4 == 0 && reinterpret_cast<uintptr_t>(params.weight) % 4 == 0;
  return weight;
}

// What blocks may spend on ψ and on notes of its taps (irrep_fprop_simt's), so that both kernels have room for it.
constexpr int64_t kMostWeightBytes = 48 * 1024;
inline int64_t weight_note_bytes(const ConvShape& shape) { return shape.taps() * (20 * shape.order() + 4); }

}  // namespace gconv::cuda
