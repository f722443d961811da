// What a thread holds of mma's operands. The inner dimension of a step is fields, in an order of its own: a thread's
// numbers of one row of A are neighbours in a map whose fields lie together, eight bytes that are read at once.
#pragma once

#include <cstring>

#include "scalar_types.h"
#include "warp_matrix.h"

namespace gconv::cuda {

// Two 16-bit numbers in a register. Every operation rounds to the type.
template <typename T>
struct Packed {
  uint32_t bits;
};

template <typename Wide, typename T>
__device__ __forceinline__ Wide unpacked(Packed<T> pair) {
  Wide wide;
  std::memcpy(&wide, &pair, sizeof wide);
  return wide;
}
template <typename T, typename Wide>
__device__ __forceinline__ Packed<T> packed(Wide wide) {
  Packed<T> pair;
  std::memcpy(&pair, &wide, sizeof pair);
  return pair;
}

__device__ __forceinline__ Packed<__nv_bfloat16> operator+(Packed<__nv_bfloat16> a, Packed<__nv_bfloat16> b) {
  return packed<__nv_bfloat16>(__hadd2(unpacked<__nv_bfloat162>(a), unpacked<__nv_bfloat162>(b)));
}
__device__ __forceinline__ Packed<__nv_bfloat16> operator-(Packed<__nv_bfloat16> a, Packed<__nv_bfloat16> b) {
  return packed<__nv_bfloat16>(__hsub2(unpacked<__nv_bfloat162>(a), unpacked<__nv_bfloat162>(b)));
}
__device__ __forceinline__ Packed<__half> operator+(Packed<__half> a, Packed<__half> b) {
  return packed<__half>(__hadd2(unpacked<__half2>(a), unpacked<__half2>(b)));
}
__device__ __forceinline__ Packed<__half> operator-(Packed<__half> a, Packed<__half> b) {
  return packed<__half>(__hsub2(unpacked<__half2>(a), unpacked<__half2>(b)));
}

template <typename T>
struct Operand {
  using Value = Packed<T>;                             // a register of numbers as the butterflies take them
  static constexpr int kFields = 16, kNeighbours = 4;  // of a step; of a thread in one row of A
  static constexpr uint32_t kSigns = 0x80008000u;
  // Where the step's inner dimension has a field: registers 0 and 2 (or 1 and 3) of A are a thread's four neighbours.
  static constexpr int place(int field) { return field / 2 % 2 * 8 + field / 4 * 2 + field % 2; }
  __device__ static Value value(uint32_t bits) { return {bits}; }
  __device__ static uint32_t bits(Value value) { return value.bits; }
  __device__ static void multiply(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    mma_m16n8k16<T>(sums, a, b);
  }
};

template <>
struct Operand<float> {  // in tf32, to which the sums of the butterflies are rounded
  using Value = float;
  static constexpr int kFields = 8, kNeighbours = 2;
  static constexpr uint32_t kSigns = 0x80000000u;
  static constexpr int place(int field) { return field % 2 * 4 + field / 2; }
  __device__ static float value(uint32_t bits) { return __uint_as_float(bits); }
  __device__ static uint32_t bits(float value) { return tf32(value); }
  __device__ static void multiply(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    mma_m16n8k8(sums, a, b);
  }
};

// A thread's neighbours of one row, as two registers: `fields` of them, zeros for the rest. They are read Width at
// once.
template <int Width, typename T>
__device__ __forceinline__ void load_neighbours(const T* map, int64_t offset, int64_t field_stride, int fields,
                                                uint32_t& low, uint32_t& high) {
  if constexpr (Width * sizeof(T) == 8) {
    const uint2 both = fields > 0 ? __ldg(reinterpret_cast<const uint2*>(map + offset)) : make_uint2(0, 0);
    low = both.x, high = both.y;
  } else if constexpr (Width * sizeof(T) == 4) {
    const auto word = [&](int field) -> uint32_t {
      return fields > field ? __ldg(reinterpret_cast<const uint32_t*>(map + offset + field * field_stride)) : 0;
    };
    low = word(0), high = word(Width);
  } else {
    const auto number = [&](int field) -> uint32_t {
      return fields > field ? __ldg(reinterpret_cast<const uint16_t*>(map + offset + field * field_stride)) : 0;
    };
    low = number(0) | number(1) << 16, high = number(2) | number(3) << 16;
  }
}

// function(a) for one number of each, function(a, b) likewise, of registers of the type's numbers; rounded once.
template <typename T, typename Function, typename... Registers>
__device__ __forceinline__ uint32_t for_each_number(Function function, Registers... registers) {
  if constexpr (sizeof(T) == 4) {
    return __float_as_uint(function(__uint_as_float(registers)...));
  } else {
    uint32_t result = 0;
    for (int half = 0; half < 2; ++half) {
      const auto one = [&](uint32_t word) {
        const auto bits = static_cast<uint16_t>(word >> 16 * half);
        T number;
        std::memcpy(&number, &bits, sizeof number);
        return widen(number);
      };
      const T number = narrow<T>(function(one(registers)...));
      uint16_t bits;
      std::memcpy(&bits, &number, sizeof bits);
      result |= uint32_t{bits} << 16 * half;
    }
    return result;
  }
}

}  // namespace gconv::cuda
