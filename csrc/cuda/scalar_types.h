// Numbers of every ScalarType on the device, in the words of csrc/cpu/scalar_types.h.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "../scalar_type.h"
#include "device.h"

namespace gconv::cuda {

// Sums are formed in float32 for the 16-bit types, else in the type itself.
template <typename T>
struct Accumulate {
  using type = float;
};
template <>
struct Accumulate<double> {
  using type = double;
};
template <typename T>
using accumulate_t = typename Accumulate<T>::type;

__device__ inline double widen(double value) { return value; }
__device__ inline float widen(float value) { return value; }
__device__ inline float widen(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ inline float widen(__half value) { return __half2float(value); }

template <typename T>
__device__ T narrow(accumulate_t<T> value) {
  return value;
}
template <>
__device__ inline __nv_bfloat16 narrow<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}
template <>
__device__ inline __half narrow<__half>(float value) {
  return __float2half_rn(value);
}

// Two numbers side by side, in the one or two words that they take.
template <typename T>
__device__ auto narrow_pair(float a, float b) {
  return make_uint2(__float_as_uint(a), __float_as_uint(b));
}
template <>
__device__ inline auto narrow_pair<__nv_bfloat16>(float a, float b) {
  return __floats2bfloat162_rn(a, b);
}
template <>
__device__ inline auto narrow_pair<__half>(float a, float b) {
  return __floats2half2_rn(a, b);
}

// a · b, rounded before it is added to anything: contracted into a multiply-add it would make the two halves of a
// butterfly round differently.
__device__ inline double product(double a, double b) { return __dmul_rn(a, b); }
__device__ inline float product(float a, float b) { return __fmul_rn(a, b); }

// call(T()) for the type T that `type` names.
template <typename Call>
cudaError_t dispatch(ScalarType type, Call call) {
  switch (type) {
    case ScalarType::Float64: return call(double());
    case ScalarType::Float32: return call(float());
    case ScalarType::BFloat16: return call(__nv_bfloat16());
    case ScalarType::Float16: return call(__half());
  }
  return cudaErrorInvalidValue;
}

}  // namespace gconv::cuda
