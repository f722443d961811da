// What a warp of wgrad multiplies in one step: two tiles in shared memory, [pixel][kIn fields of x] and [pixel][kOut
// fields of dy], into sums [in field, out field]; the inner dimension is the pixels. On the tensor cores and on the
// CUDA cores:
//
//   kIn, kOut, kTf32              whether the numbers are rounded to tf32
//   Sums                          a lane's part, kIn · kOut / 32 numbers
//   Y                             a lane's part of the tile of dy
//   read(y, dy), add<negated>(sums, y, x)
//   in_field(i), out_field(i)     where number i of the sums stands in the tile
#pragma once

#include <algorithm>
#include <type_traits>

#include "scalar_types.h"
#include "warp_matrix.h"

namespace gconv::cuda {

// Pixels of one step, of which a field has 32 bytes.
constexpr int wgrad_step_pixels(int bytes) { return 32 / bytes; }

// Numbers between the rows of a tile in shared memory: 8 rows of ldmatrix, and 4 of tf32, fall into different banks.
constexpr int kPadding = 8;

// In tiles of 16 × 8. The 16-bit types are transposed by ldmatrix, tf32 is read number by number.
template <typename T, int In, int Out, int InPitch = In + kPadding, int OutPitch = Out + kPadding>
struct MmaProduct {
  static constexpr int kIn = In, kOut = Out, kInPitch = InPitch, kOutPitch = OutPitch;
  static constexpr bool kTf32 = std::is_same_v<T, float>;
  struct Sums {
    float tile[kIn / 16][kOut / 8][4];
    __device__ float operator[](int i) const { return tile[i / (kOut / 2)][i / 4 % (kOut / 8)][i % 4]; }
  };
  struct Y {
    uint32_t tile[kOut / 8][2];
  };

  static __device__ int lane() { return threadIdx.x % 32; }
  static __device__ int in_field(int i) { return i / (kOut / 2) * 16 + i % 4 / 2 * 8 + lane() / 4; }
  static __device__ int out_field(int i) { return i / 4 % (kOut / 8) * 8 + lane() % 4 * 2 + i % 2; }

  static __device__ __forceinline__ void read(Y& y, const T* plane) {
#pragma unroll
    for (int field = 0; field < kOut; field += 16) {
      auto& low = y.tile[field / 8];
      auto& high = y.tile[field / 8 + 1];
      if constexpr (kTf32) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const T* from = plane + (lane() % 4 + 4 * i) * kOutPitch + field + lane() / 4;
          low[i] = __float_as_uint(from[0]);
          high[i] = __float_as_uint(from[8]);
        }
      } else {
        uint32_t both[4];
        ldmatrix_x4_trans(both, plane + lane() % 16 * kOutPitch + field + lane() / 16 * 8);
        low[0] = both[0], low[1] = both[1], high[0] = both[2], high[1] = both[3];
      }
    }
  }

  template <bool Negated>
  static __device__ __forceinline__ void add(Sums& sums, const Y& y, const T* plane) {
#pragma unroll
    for (int field = 0; field < kIn; field += 16) {
      uint32_t x[4];
      if constexpr (kTf32) {
#pragma unroll
        for (int i = 0; i < 4; ++i)
          x[i] = __float_as_uint(plane[(lane() % 4 + i / 2 * 4) * kInPitch + field + i % 2 * 8 + lane() / 4]);
      } else {
        ldmatrix_x4_trans(x, plane + (lane() % 8 + lane() / 16 * 8) * kInPitch + field + lane() / 8 % 2 * 8);
      }
      if constexpr (Negated)
        for (uint32_t& word : x) word ^= kTf32 ? 0x80000000u : 0x80008000u;
#pragma unroll
      for (int column = 0; column < kOut / 8; ++column) {
        if constexpr (kTf32)
          mma_m16n8k8(sums.tile[field / 16][column], x, y.tile[column]);
        else
          mma_m16n8k16<T>(sums.tile[field / 16][column], x, y.tile[column]);
      }
    }
  }
};

// Each lane sums a quarter of the in fields × an eighth of the out fields.
template <typename T, int In, int Out, int InPitch = In + kPadding, int OutPitch = Out + kPadding>
struct SimtProduct {
  static constexpr int kIn = In, kOut = Out, kInPitch = InPitch, kOutPitch = OutPitch;
  static constexpr int kPixels = wgrad_step_pixels(sizeof(T)), kInLane = kIn / 4, kOutLane = kOut / 8;
  static constexpr bool kTf32 = false;
  using Sums = T[kInLane * kOutLane];

  template <int N>
  struct alignas(std::min<size_t>(16, N * sizeof(T))) Numbers {
    T number[N];
  };
  using Y = Numbers<kOutLane>[kPixels];

  static __device__ int in_lane() { return threadIdx.x % (kIn / kInLane); }
  static __device__ int out_lane() { return threadIdx.x % 32 / (kIn / kInLane); }
  static __device__ int in_field(int i) { return in_lane() * kInLane + i % kInLane; }
  static __device__ int out_field(int i) { return out_lane() * kOutLane + i / kInLane; }

  static __device__ __forceinline__ void read(Y& y, const T* plane) {
#pragma unroll
    for (int pixel = 0; pixel < kPixels; ++pixel)
      y[pixel] = *reinterpret_cast<const Numbers<kOutLane>*>(plane + pixel * kOutPitch + out_lane() * kOutLane);
  }

  template <bool Negated>
  static __device__ __forceinline__ void add(Sums& sums, const Y& y, const T* plane) {
#pragma unroll
    for (int pixel = 0; pixel < kPixels; ++pixel) {
      const auto x = *reinterpret_cast<const Numbers<kInLane>*>(plane + pixel * kInPitch + in_lane() * kInLane);
#pragma unroll
      for (int i = 0; i < kInLane * kOutLane; ++i) {
        const T product = x.number[i % kInLane] * y[pixel].number[i / kInLane];
        sums[i] += Negated ? -product : product;
      }
    }
  }
};

}  // namespace gconv::cuda
