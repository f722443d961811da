// One binary for every x86-64 processor: a kernel header is compiled once per instruction set, each time in a
// namespace of its own, and the copy to run is chosen at run time. No torch header here.
#pragma once

namespace gconv::cpu {

enum class InstructionSet { Baseline, Avx2, Avx512 };

inline const char* name(InstructionSet level) {
  return level == InstructionSet::Avx512 ? "AVX-512" : level == InstructionSet::Avx2 ? "AVX2" : "baseline";
}

inline bool supported(InstructionSet level) {
#ifdef GCONV_EMULATED_AVX512  // python_tests/emulation/avx512.h
  if (level == InstructionSet::Avx512) return true;
#endif
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
  switch (level) {
    case InstructionSet::Avx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    case InstructionSet::Avx2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    default: return true;
  }
#else
  return level == InstructionSet::Baseline;
#endif
}

inline InstructionSet best_instruction_set() {
  static const InstructionSet best = supported(InstructionSet::Avx512) ? InstructionSet::Avx512
                                     : supported(InstructionSet::Avx2) ? InstructionSet::Avx2
                                                                       : InstructionSet::Baseline;
  return best;
}

}  // namespace gconv::cpu

#if defined(__x86_64__) && defined(__clang__)
#define GCONV_TARGET_AVX2 _Pragma("clang attribute push(__attribute__((target(\"avx2,fma\"))), apply_to = function)")
#define GCONV_TARGET_AVX512 \
  _Pragma(                  \
      "clang attribute push(__attribute__((target(\"avx2,fma,avx512f,avx512bw,avx512vl,avx512dq\"))), apply_to = function)")
#define GCONV_TARGET_END _Pragma("clang attribute pop")
#elif defined(__x86_64__) && defined(__GNUC__)
#define GCONV_TARGET_AVX2 _Pragma("GCC push_options") _Pragma("GCC target(\"avx2,fma\")")
#define GCONV_TARGET_AVX512   \
  _Pragma("GCC push_options") \
      _Pragma("GCC target(\"avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,prefer-vector-width=512\")")
#define GCONV_TARGET_END _Pragma("GCC pop_options")
#else
#define GCONV_TARGET_AVX2
#define GCONV_TARGET_AVX512
#define GCONV_TARGET_END
#endif

#ifdef GCONV_EMULATED_AVX512
#undef GCONV_TARGET_AVX512
#ifdef __clang__
#define GCONV_TARGET_AVX512 _Pragma("clang attribute push(__attribute__((target(\"sse2\"))), apply_to = function)")
#else
#define GCONV_TARGET_AVX512 _Pragma("GCC push_options")
#endif
#endif
