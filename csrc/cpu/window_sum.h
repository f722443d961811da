// Sums over windows of planes, by taps that no turn or reflection changes (gconv_ext/window_sum.py), on the CPU:
//
//   window_sum_fprop   y[p] = Σ_t taps[t] · x[stride · p + t − padding]
//   window_sum_dgrad   dx[q] = Σ_t taps[t] · dy[(q + padding − t) / stride]
//
// with zeros beyond the edges, and in the second where the division leaves a rest. The pixels that turns and reflections
// of the window exchange are added first, along a chain of subgroups, so that a turned plane gives the same bits: by r² in
// pairs, by a reflection in fours, by the diagonal in eights, and then tap by tap. Float32 and float64. No torch header
// here.
#pragma once

#include <cstdint>
#include <vector>

#include "../scalar_type.h"
#include "instruction_set.h"

namespace gconv::cpu {

struct WindowSumParams {
  ScalarType type = ScalarType::Float32;
  int64_t height = 0, width = 0;  // of a plane of x
  int64_t stride = 1, padding = 0;
  int64_t size = 0;          // k
  std::vector<double> taps;  // [k, k]

  int64_t last() const { return size - 1; }
  int64_t out_height() const { return (height + 2 * padding - last() - 1) / stride + 1; }
  int64_t out_width() const { return (width + 2 * padding - last() - 1) / stride + 1; }
};

struct Planes {
  int64_t begin, end;
};

// x [planes, height, width], y [planes, out_height, out_width]; of both the planes in the range alone.
void window_sum_fprop(const WindowSumParams& params, const void* x, void* y, Planes planes,
                      InstructionSet level = best_instruction_set());
void window_sum_dgrad(const WindowSumParams& params, const void* dy, void* dx, Planes planes,
                      InstructionSet level = best_instruction_set());

}  // namespace gconv::cpu
