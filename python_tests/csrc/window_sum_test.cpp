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

// A plane [size, size] with rows and columns exchanged, or its rows in reverse: what generates all turns and reflections.
template <typename T>
std::vector<T> moved(const std::vector<T>& plane, int64_t size, bool exchange) {
  std::vector<T> result(plane.size());
  for (int64_t r = 0; r < size; ++r)
    for (int64_t c = 0; c < size; ++c)
      result[r * size + c] = exchange ? plane[c * size + r] : plane[(size - 1 - r) * size + c];
  return result;
}

// Both passes of a moved plane are the moved passes of the plane, to the bit.
template <typename T>
void check_exact(cpu::WindowSumParams params, cpu::ScalarType type, InstructionSet level) {
  params.type = type;
  while ((params.height + 2 * params.padding - params.size) % params.stride) ++params.height;
  const int64_t size = params.width = params.height, out = params.out_height();
  uint64_t state = size;
  const auto x = random_numbers<T>(size * size, state), dy = random_numbers<T>(out * out, state);
  const auto run = [&](const std::vector<T>& from, bool forward) {
    std::vector<T> to(forward ? dy.size() : x.size());
    (forward ? cpu::window_sum_fprop : cpu::window_sum_dgrad)(params, from.data(), to.data(), {0, 1}, level);
    return to;
  };
  for (const bool exchange : {true, false})
    if (run(moved(x, size, exchange), true) != moved(run(x, true), out, exchange) ||
        run(moved(dy, out, exchange), false) != moved(run(dy, false), size, exchange))
      std::printf("%s, %d bytes, %d taps, stride %d, padding %d: a turned plane gives other bits\n", cpu::name(level),
                  int(sizeof(T)), int(params.size), int(params.stride), int(params.padding)),
          ++failures;
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
            check_exact<float>(params, cpu::ScalarType::Float32, level);
            check_exact<double>(params, cpu::ScalarType::Float64, level);
          }
  });
}
