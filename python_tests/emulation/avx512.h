// AVX-512's kernels without its instructions, for tests on any x86-64 processor: compiled as baseline code, whose compiler
// splits the vectors, and with the intrinsics they use as loops over lanes, which AddressSanitizer checks lane by lane.
// Included before everything else (CMakeLists.txt).
#pragma once

#define GCONV_EMULATED_AVX512

#include <immintrin.h>

#include <cstdint>

namespace gconv_emulation {

template <typename T>
struct Lanes {
  static constexpr int count = 64 / sizeof(T);
  typedef T Type __attribute__((vector_size(64)));
};

template <typename T>
inline typename Lanes<T>::Type load_masked(typename Lanes<T>::Type value, uint32_t lanes, const T* from) {
  for (int l = 0; l < Lanes<T>::count; ++l)
    if (lanes >> l & 1) value[l] = from[l];
  return value;
}
template <typename T>
inline void store_masked(T* to, uint32_t lanes, typename Lanes<T>::Type value) {
  for (int l = 0; l < Lanes<T>::count; ++l)
    if (lanes >> l & 1) to[l] = value[l];
}

}  // namespace gconv_emulation

#define _mm512_maskz_loadu_pd(lanes, from) \
  gconv_emulation::load_masked<double>(gconv_emulation::Lanes<double>::Type{}, lanes, from)
#define _mm512_maskz_loadu_ps(lanes, from) \
  gconv_emulation::load_masked<float>(gconv_emulation::Lanes<float>::Type{}, lanes, from)
#define _mm512_mask_loadu_pd(value, lanes, from) \
  gconv_emulation::load_masked<double>(gconv_emulation::Lanes<double>::Type(value), lanes, from)
#define _mm512_mask_loadu_ps(value, lanes, from) \
  gconv_emulation::load_masked<float>(gconv_emulation::Lanes<float>::Type(value), lanes, from)
#define _mm512_mask_storeu_pd(to, lanes, value) \
  gconv_emulation::store_masked<double>(to, lanes, gconv_emulation::Lanes<double>::Type(value))
#define _mm512_mask_storeu_ps(to, lanes, value) \
  gconv_emulation::store_masked<float>(to, lanes, gconv_emulation::Lanes<float>::Type(value))
