// Reading feature maps for irrep_wgrad: 16 bytes of neighbouring fields at a time, of all elements, transformed in
// registers.
#pragma once

#include "fourier.h"
#include "map_chunks.h"
#include "warp_matrix.h"

namespace gconv::cuda {

// Two numbers of 16 bits, added at once.
template <typename Two>
struct Pair {
  Two both;
  friend __device__ Pair operator+(Pair a, Pair b) { return {__hadd2(a.both, b.both)}; }
  friend __device__ Pair operator-(Pair a, Pair b) { return {__hsub2(a.both, b.both)}; }
  friend __device__ Pair product(Pair a, Pair b) { return {__hmul2_rn(a.both, b.both)}; }  // as in scalar_types.h
};

template <typename T>
struct Vector {
  using type = T;
  static __device__ T of(T number) { return number; }
};
template <>
struct Vector<__nv_bfloat16> {
  using type = Pair<__nv_bfloat162>;
  static __device__ type of(__nv_bfloat16 number) { return {{number, number}}; }
};
template <>
struct Vector<__half> {
  using type = Pair<__half2>;
  static __device__ type of(__half number) { return {{number, number}}; }
};

// f[g] of a chunk of fields.
template <bool Maskable, typename T, int Order>
__device__ __forceinline__ void read_elements(uint4 (&f)[Order], const Map<T>& map, const Shift* shifts, bool inside,
                                              Pixel pixel, int field) {
#pragma unroll
  for (int g = 0; g < Order; ++g) f[g] = read_chunk<Maskable>(map, shifts[g], inside, pixel, field);
}

// Each f[g] is multiplied by scale[g] where there is one. Every step is rounded to T; the planes to tf32 in the end.
template <typename T, typename Group, bool Tf32>
__device__ __forceinline__ void transform(uint4 (&f)[Group::table.order], const T* scale) {
  using Value = typename Vector<T>::type;
  constexpr int order = Group::table.order;
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(uint4) / sizeof(Value)); ++i) {
    Value values[order];
#pragma unroll
    for (int g = 0; g < order; ++g) {
      std::memcpy(&values[g], reinterpret_cast<const char*>(&f[g]) + i * sizeof(Value), sizeof(Value));
      if (scale) values[g] = product(values[g], Vector<T>::of(scale[g]));
    }
    fourier<Group>(values);
#pragma unroll
    for (int g = 0; g < order; ++g) {
      if constexpr (Tf32) values[g] = __uint_as_float(tf32(values[g]));
      std::memcpy(reinterpret_cast<char*>(&f[g]) + i * sizeof(Value), &values[g], sizeof(Value));
    }
  }
}

}  // namespace gconv::cuda
