#include "window_sum.h"

#include <algorithm>
#include <limits>

namespace gconv::cpu {
namespace {

constexpr int64_t kNoPixel = std::numeric_limits<int64_t>::min();

// Taps that the symmetries of the window exchange, and have one weight: where they are read. Those that a rotation of half
// a turn exchanges stand side by side, those of a reflection in one four, those of the diagonal in the other.
struct Orbit {
  double weight;
  int first, second;  // how many there are in each four: 0, 1, 2 or 4
  int64_t offset[8];
};

// offset_of(i, j) says where tap (i, j) is read, or kNoPixel.
template <typename OffsetOf>
std::vector<Orbit> orbits_of(const WindowSumParams& params, OffsetOf offset_of) {
  const int64_t last = params.last();
  std::vector<Orbit> orbits;
  for (int64_t i = 0; 2 * i <= last; ++i)
    for (int64_t j = i; 2 * j <= last; ++j) {
      Orbit orbit{params.taps[i * params.size + j], 0, 0, {}};
      const auto four = [&](int64_t row, int64_t column, int64_t* offset) {
        int count = 0;
        const auto tap = [&](int64_t r, int64_t c) {
          if (const int64_t found = offset_of(r, c); found != kNoPixel) offset[count++] = found;
        };
        const bool middle_row = 2 * row == last, middle_column = 2 * column == last;
        tap(row, column);
        if (!middle_row || !middle_column) tap(last - row, last - column);
        if (!middle_row && !middle_column) tap(row, last - column), tap(last - row, column);
        return count;
      };
      orbit.first = four(i, j, orbit.offset);
      if (i != j) orbit.second = four(j, i, orbit.offset + 4);
      if (orbit.first + orbit.second > 0) orbits.push_back(orbit);
    }
  return orbits;
}

}  // namespace

namespace baseline {
constexpr int kVectorBytes = 16;
#include "vector_kernel.h"
#include "window_sum_kernel.h"
}  // namespace baseline

GCONV_TARGET_AVX2
namespace avx2 {
constexpr int kVectorBytes = 32;
#include "vector_kernel.h"
#include "window_sum_kernel.h"
}  // namespace avx2
GCONV_TARGET_END

GCONV_TARGET_AVX512
namespace avx512 {
constexpr int kVectorBytes = 64;
#include "vector_kernel.h"
#include "window_sum_kernel.h"
}  // namespace avx512
GCONV_TARGET_END

namespace {

// visit(the kernels of the type and the instruction set, a number of that type)
template <typename Visit>
void run(ScalarType type, InstructionSet level, Visit visit) {
  const auto typed = [&](auto number) {
    using T = decltype(number);
    switch (level) {
      case InstructionSet::Avx512: return visit(avx512::WindowSum<T>{}, number);
      case InstructionSet::Avx2: return visit(avx2::WindowSum<T>{}, number);
      case InstructionSet::Baseline: return visit(baseline::WindowSum<T>{}, number);
    }
  };
  type == ScalarType::Float64 ? typed(double{}) : typed(float{});
}

}  // namespace

void window_sum_fprop(const WindowSumParams& params, const void* x, void* y, Planes planes, InstructionSet level) {
  run(params.type, level, [&](auto kernels, auto number) {
    using T = decltype(number);
    kernels.fprop(params, static_cast<const T*>(x), static_cast<T*>(y), planes);
  });
}

void window_sum_dgrad(const WindowSumParams& params, const void* dy, void* dx, Planes planes, InstructionSet level) {
  run(params.type, level, [&](auto kernels, auto number) {
    using T = decltype(number);
    kernels.dgrad(params, static_cast<const T*>(dy), static_cast<T*>(dx), planes);
  });
}

}  // namespace gconv::cpu
