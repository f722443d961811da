// bfloat16 and float16 as CUDA names them, in software. Each operation rounds its exact result once, to nearest even.
#pragma once

#include "cpu/scalar_types.h"
#include "cuda_emulation.h"

// name: of the type; wide: of the pair; same: the type of csrc/cpu; short_name: what stands for it in names of
// functions. Two numbers of 8 or 11 bits: float32's 24 are enough for + − × to round once.
#define GCONV_16BIT(name, wide, same, short_name)                                                                   \
  struct name {                                                                                                     \
    unsigned short bits;                                                                                            \
  };                                                                                                                \
  struct alignas(4) wide {                                                                                          \
    name x, y;                                                                                                      \
  };                                                                                                                \
  inline name __float2##short_name##_rn(float value) { return {gconv::cpu::narrow<gconv::cpu::same>(value).bits}; } \
  inline name __float2##short_name(float value) { return __float2##short_name##_rn(value); }                        \
  inline float __##short_name##2float(name value) { return gconv::cpu::widen(gconv::cpu::same{value.bits}); }       \
  inline wide __floats2##short_name##2_rn(float x, float y) {                                                       \
    return {__float2##short_name(x), __float2##short_name(y)};                                                      \
  }                                                                                                                 \
  inline float2 __##short_name##22float2(wide a) {                                                                  \
    return {__##short_name##2float(a.x), __##short_name##2float(a.y)};                                              \
  }                                                                                                                 \
  inline float __low2float(wide a) { return __##short_name##2float(a.x); }                                          \
  inline float __high2float(wide a) { return __##short_name##2float(a.y); }                                         \
  inline name __hadd(name a, name b) {                                                                              \
    return __float2##short_name(__##short_name##2float(a) + __##short_name##2float(b));                             \
  }                                                                                                                 \
  inline name __hsub(name a, name b) {                                                                              \
    return __float2##short_name(__##short_name##2float(a) - __##short_name##2float(b));                             \
  }                                                                                                                 \
  inline name __hmul(name a, name b) {                                                                              \
    return __float2##short_name(__##short_name##2float(a) * __##short_name##2float(b));                             \
  }                                                                                                                 \
  inline name __hneg(name a) { return {static_cast<unsigned short>(a.bits ^ 0x8000u)}; }                            \
  inline wide __hadd2(wide a, wide b) { return {__hadd(a.x, b.x), __hadd(a.y, b.y)}; }                              \
  inline wide __hsub2(wide a, wide b) { return {__hsub(a.x, b.x), __hsub(a.y, b.y)}; }                              \
  inline wide __hmul2(wide a, wide b) { return {__hmul(a.x, b.x), __hmul(a.y, b.y)}; }                              \
  inline wide __hmul2_rn(wide a, wide b) { return __hmul2(a, b); }                                                  \
  inline wide __hneg2(wide a) { return {__hneg(a.x), __hneg(a.y)}; }
GCONV_16BIT(__nv_bfloat16, __nv_bfloat162, BFloat16, bfloat16)
GCONV_16BIT(__half, __half2, Float16, half)
#undef GCONV_16BIT
