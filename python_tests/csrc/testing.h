// What the C++ tests share.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <type_traits>
#include <vector>

#include "cpu/instruction_set.h"
#include "cpu/scalar_types.h"

namespace testing {

inline int failures = 0;

inline double noise(uint64_t& state) {  // uniform in [-1, 1)
  state = state * 6364136223846793005u + 1442695040888963407u;
  return static_cast<double>(state >> 11) / (1ull << 52) - 1;
}

template <typename T>
std::vector<T> random_numbers(int64_t count, uint64_t& state) {
  std::vector<T> numbers(count);
  for (T& number : numbers) number = gconv::cpu::narrow<T>(static_cast<gconv::cpu::accumulate_t<T>>(noise(state)));
  return numbers;
}

// 2^-p for the p bits that a type keeps.
template <typename T>
constexpr double half_ulp() {
  if (std::is_same_v<T, double>) return 0x1p-53;
  if (std::is_same_v<T, float>) return 0x1p-24;
  return std::is_same_v<T, gconv::cpu::BFloat16> ? 0x1p-8 : 0x1p-11;
}

// Those that this processor has.
inline std::vector<gconv::cpu::InstructionSet> instruction_sets() {
  using gconv::cpu::InstructionSet;
  std::vector<InstructionSet> levels;
  for (InstructionSet level : {InstructionSet::Baseline, InstructionSet::Avx2, InstructionSet::Avx512}) {
    if (gconv::cpu::supported(level))
      levels.push_back(level);
    else
      std::printf("%s is not supported by this processor: not tested\n", gconv::cpu::name(level));
  }
  return levels;
}

// main's result.
inline int report(const std::vector<gconv::cpu::InstructionSet>& levels) {
  std::printf("%d instruction sets, %d failures\n", static_cast<int>(levels.size()), failures);
  return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}

// Calls check(level) for each of them, and gives main's result.
template <typename Check>
int for_each_instruction_set(Check check) {
  const auto levels = instruction_sets();
  for (gconv::cpu::InstructionSet level : levels) check(level);
  return report(levels);
}

}  // namespace testing
