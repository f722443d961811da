// The window sum kernels, each instruction set against the sums of cpu/window_sum.h written out.
#include "cpu/window_sum.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "testing.h"

using namespace gconv;
using namespace testing;
using cpu::InstructionSet;

namespace {

template <typename T>
void agree(const std::vector<T>& got, const std::vector<long double>& want, double tolerance, const char* what,
           const char* where) {
  long double worst = std::isnan(got.back()) ? 0 : INFINITY;  // the number behind the last was not to be written
  for (size_t i = 0; i < want.size(); ++i) worst = std::fmax(worst, std::fabs(got[i] - want[i]));
  for (size_t i = 0; i < want.size(); ++i)
    if (std::isnan(got[i])) worst = INFINITY;
  if (!(worst <= tolerance)) std::printf("%s, %s: off by %Lg\n", where, what, worst), ++failures;
}

template <typename T>
void check(cpu::WindowSumParams params, int64_t planes, cpu::ScalarType type, InstructionSet level) {
  params.type = type;
  const int64_t height = params.height, width = params.width, rows = params.out_height(), columns = params.out_width();
  uint64_t state = height + width;
  const auto x = random_numbers<T>(planes * height * width, state),
             dy = random_numbers<T>(planes * rows * columns, state);
  std::vector<T> y(dy.size() + 1, NAN), dx(x.size() + 1, NAN);
  for (const cpu::Planes part : {cpu::Planes{0, planes / 2}, cpu::Planes{planes / 2, planes}}) {
    cpu::window_sum_fprop(params, x.data(), y.data(), part, level);
    cpu::window_sum_dgrad(params, dy.data(), dx.data(), part, level);
  }

  std::vector<long double> want_y(dy.size()), want_dx(x.size());
  const int64_t size = params.size;
  for (int64_t plane = 0; plane < planes; ++plane)
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t column = 0; column < columns; ++column)
        for (int64_t i = 0; i < size; ++i)
          for (int64_t j = 0; j < size; ++j) {
            const int64_t r = row * params.stride + i - params.padding, c = column * params.stride + j - params.padding;
            if (r < 0 || r >= height || c < 0 || c >= width) continue;
            const int64_t to = (plane * rows + row) * columns + column, from = (plane * height + r) * width + c;
            const long double weight = static_cast<T>(params.taps[i * size + j]);
            want_y[to] += weight * x[from];
            want_dx[from] += weight * dy[to];
          }
  char where[100];
  std::snprintf(where, sizeof where, "%s, %d bytes, %d taps, stride %d, padding %d, %d x %d", cpu::name(level),
                int(sizeof(T)), int(size), int(params.stride), int(params.padding), int(height), int(width));
  double largest = 0;
  for (const double tap : params.taps) largest += std::fabs(tap);
  const double tolerance = half_ulp<T>() * static_cast<double>(8 * size) * largest;
  agree(y, want_y, tolerance, "y", where), agree(dx, want_dx, tolerance, "dx", where);
}

}  // namespace

int main() {
  // Of each orbit another number; and one tap.
  std::vector<std::pair<int64_t, std::vector<double>>> all_taps;
  for (const int64_t size : {1, 2, 3, 4, 5, 7}) {
    std::vector<double> taps(size * size);
    for (int64_t i = 0; i < size; ++i)
      for (int64_t j = 0; j < size; ++j) {
        const int64_t a = std::min(i, size - 1 - i), b = std::min(j, size - 1 - j);
        taps[i * size + j] = 1 / (1.0 + static_cast<double>(10 * std::max(a, b) + std::min(a, b)));
      }
    all_taps.emplace_back(size, taps);
  }
  return for_each_instruction_set([&](InstructionSet level) {
    for (const auto& [size, taps] : all_taps)
      for (const int64_t stride : {1, 2, 3, 7})
        for (const int64_t padding : {0, 1, 2, 6})
          for (const auto& [height, width] : {std::pair<int64_t, int64_t>{5, 5}, {6, 9}, {31, 18}, {70, 300}}) {
            if (height > 40 && padding == 6) continue;
            if (height + 2 * padding < size) continue;
            const cpu::WindowSumParams params{cpu::ScalarType::Float32, height, width, stride, padding, size, taps};
            check<float>(params, 3, cpu::ScalarType::Float32, level);
            check<double>(params, 3, cpu::ScalarType::Float64, level);
          }
  });
}
