// The irrep kernels, each instruction set against the sum written out from conv_shape.h's equation: values, every number
// written, and nothing read or written outside (under AddressSanitizer).
#include "cpu/irrep.h"

#include <cmath>
#include <cstdio>

#include "testing.h"

using namespace gconv;
using namespace testing;
using cpu::InstructionSet;

namespace {

template <typename T>
double tolerance() {  // relative to the largest number; float32 sums, then one rounding to T
  if (std::is_same_v<T, double>) return 1e-14;
  if (std::is_same_v<T, float>) return 4e-6;
  return std::is_same_v<T, cpu::BFloat16> ? 0x1p-8 + 4e-6 : 0x1p-11 + 4e-6;
}

template <typename T>
void compare(const char* what, const std::vector<T>& got, const std::vector<double>& want) {
  double largest = 0;
  for (double number : want) largest = std::max(largest, std::abs(number));
  for (size_t i = 0; i < want.size(); ++i)
    if (!(std::abs(cpu::widen(got[i]) - want[i]) <= tolerance<T>() * largest)) {  // NaN fails too
      if (++failures < 20)
        std::printf("%s[%zu]: got %.9g, expected %.9g\n", what, i, double(cpu::widen(got[i])), want[i]);
      return;
    }
}

struct Case {
  bool lifting;
  int64_t batch, groups, in_fields, out_fields, height, width;
  int size;
  int64_t stride, padding, dilation, spread;
  enum { Rows, ElementsLast, FieldsLast } format;
  int banks = 1;  // more than one: relaxed
  bool relax_input = false;
  bool activated = false;  // the gradients' masks, of x in fprop and of dy in wgrad
};

MapStrides strides_of(const Case& c, int64_t fields, int64_t elements, int64_t height, int64_t width) {
  const int64_t planes = fields * elements;
  if (c.format == Case::ElementsLast) return {height * width * planes, elements, 1, width * planes, planes};
  if (c.format == Case::FieldsLast)
    return {height * width * planes, 1, height * width * fields, width * fields, fields};
  return {planes * height * width, elements * height * width, height * width, width, 1};
}

int64_t at(const MapStrides& s, int64_t b, int64_t f, int64_t e, int64_t r, int64_t c) {
  return b * s.batch + f * s.field + e * s.element + r * s.row + c * s.column;
}

template <typename T>
void check(const char* group, const Case& c, cpu::ScalarType type, const std::vector<InstructionSet>& levels) {
  uint64_t state = c.size + c.in_fields + 1;
  ConvShape s;
  s.group = find_group(group);
  s.lifting = c.lifting;
  s.batch = c.batch, s.groups = c.groups, s.in_fields = c.in_fields, s.out_fields = c.out_fields, s.size = c.size;
  for (auto [axis, in] : {std::pair{&s.rows, c.height}, std::pair{&s.columns, c.width}}) {
    *axis = {in, 0, c.stride, c.padding, c.dilation, c.spread};
    axis->out = ((in - 1) * c.spread + 2 * c.padding - c.dilation * (c.size - 1)) / c.stride + 1;
  }
  const int64_t order = s.order(), elements = s.in_elements(), taps = s.taps(), block = elements * taps;
  const int64_t in_planes = c.groups * c.in_fields, out_planes = c.groups * c.out_fields;
  const MapStrides xs = strides_of(c, in_planes, elements, c.height, c.width);
  const MapStrides ys = strides_of(c, out_planes, order, s.rows.out, s.columns.out);
  const int64_t out_numbers = c.batch * out_planes * order * s.rows.out * s.columns.out;
  const auto x = random_numbers<T>(c.batch * in_planes * elements * c.height * c.width, state);
  const int64_t bank = out_planes * c.in_fields * block;
  const auto weight = random_numbers<T>(c.banks * bank, state);
  const auto w = random_numbers<T>(c.banks * order, state);
  const auto bias = random_numbers<T>(out_planes, state);
  const auto dy = random_numbers<T>(out_numbers, state);
  const auto x_activated = random_numbers<T>(x.size(), state), dy_activated = random_numbers<T>(out_numbers, state);
  const bool biased = c.spread == 1;

  std::vector<double> want(out_numbers), want_grad(weight.size());
  for (int64_t o = 0; o < out_planes; ++o)
    for (int u = 0; u < order; ++u)
      for (int64_t i = 0; i < c.in_fields; ++i)
        for (int e = 0; e < elements; ++e)
          for (int tap = 0; tap < taps; ++tap) {
            const int v = c.lifting ? 0 : s.group->product[u][e], t = moved_tap(s.group->matrices[u], tap, c.size);
            const int64_t row = t / c.size * c.dilation - c.padding, column = t % c.size * c.dilation - c.padding;
            for (int64_t p = 0; p < s.rows.out; ++p)
              for (int64_t q = 0; q < s.columns.out; ++q) {
                const int64_t r = p * c.stride + row, col = q * c.stride + column;
                if (r < 0 || col < 0 || r % c.spread || col % c.spread || r / c.spread >= c.height ||
                    col / c.spread >= c.width)
                  continue;
                for (int64_t b = 0; b < c.batch; ++b) {
                  const int64_t to = at(ys, b, o, u, p, q);
                  const int64_t from_x = at(xs, b, o / c.out_fields * c.in_fields + i, v, r / c.spread, col / c.spread);
                  const double pixel = cpu::widen(x[from_x]);
                  const double masked = c.activated && !(cpu::widen(x_activated[from_x]) > 0) ? 0 : pixel;
                  const double gradient = c.activated && !(cpu::widen(dy_activated[to]) > 0) ? 0 : cpu::widen(dy[to]);
                  for (int l = 0; l < c.banks; ++l) {
                    const int64_t from = l * bank + (o * c.in_fields + i) * block + e * taps + tap;
                    const double scale = c.banks > 1 ? double(cpu::widen(w[l * order + (c.relax_input ? v : u)])) : 1;
                    want[to] += masked * scale * cpu::widen(weight[from]);
                    want_grad[from] += pixel * scale * gradient;
                  }
                }
              }
          }
  for (int64_t b = 0; biased && b < c.batch; ++b)
    for (int64_t o = 0; o < out_planes; ++o)
      for (int u = 0; u < order; ++u)
        for (int64_t p = 0; p < s.rows.out; ++p)
          for (int64_t q = 0; q < s.columns.out; ++q) want[at(ys, b, o, u, p, q)] += cpu::widen(bias[o]);

  for (InstructionSet level : levels) {
    std::vector<T> y(out_numbers, cpu::narrow<T>(NAN)), grad_weight(weight.size(), cpu::narrow<T>(NAN));
    cpu::IrrepFpropParams fprop;
    fprop.shape = s, fprop.type = type, fprop.x = x.data(), fprop.x_strides = xs, fprop.weight = weight.data();
    if (biased) fprop.bias = bias.data();
    fprop.y = y.data(), fprop.y_strides = ys;
    fprop.banks = c.banks, fprop.relax_input = c.relax_input,
    fprop.x_activated = c.activated ? x_activated.data() : nullptr;
    fprop.relaxed_weight = c.banks > 1 ? w.data() : nullptr;
    fprop.most_images = c.batch / 2 + 1;
    // As in dgrad.
    fprop.adjoint = c.spread > 1;
    std::vector<T> adjoint(weight.size());
    if (fprop.adjoint) {
      const std::vector<int32_t> position = adjoint_positions(s);
      for (int64_t i = 0; i < c.banks * out_planes; ++i)
        for (int64_t in = 0; in < c.in_fields; ++in)
          for (int64_t j = 0; j < block; ++j) {
            const int64_t to = (i / c.out_fields * c.in_fields + in) * c.out_fields + i % c.out_fields;
            adjoint[to * block + position[j]] = weight[(i * c.in_fields + in) * block + j];
          }
      fprop.weight = adjoint.data();
    }
    if (cpu::leaves_zeros(fprop)) std::fill(y.begin(), y.end(), cpu::narrow<T>(0));
    const auto plan = cpu::plan_irrep_fprop(fprop, level);
    const int64_t transform_units = plan->transform_units();
    plan->transform_weight(0, transform_units / 2);
    plan->transform_weight(transform_units / 2, transform_units);
    // Images cut into three parts, the last first: what a part stores beyond its end stays.
    for (int64_t begin = 0, end = plan->stacks() * 3; end > 0; end = begin) {
      begin = std::max<int64_t>(0, end - 2);
      plan->run(begin, end, 3);
    }

    // wgrad has no spread.
    for (int l = 0; c.spread == 1 && l < c.banks; ++l) {
      cpu::IrrepWgradParams wgrad;
      wgrad.shape = s, wgrad.type = type, wgrad.x = x.data(), wgrad.x_strides = xs, wgrad.dy = dy.data();
      wgrad.dy_strides = ys, wgrad.grad_weight = grad_weight.data() + l * bank;
      wgrad.dy_activated = c.activated ? dy_activated.data() : nullptr;
      if (c.banks > 1) (c.relax_input ? wgrad.x_scale : wgrad.dy_scale) = w.data() + l * order;
      const auto gradient = cpu::plan_irrep_wgrad(wgrad, level);
      gradient->run(0, gradient->units());
      gradient->finish(0, gradient->finish_units() / 2);
      gradient->finish(gradient->finish_units() / 2, gradient->finish_units());
    }
    char what[200];
    std::snprintf(what, sizeof what, "%s %s %d->%d L=%d k=%d s=%d p=%d d=%d spread=%d%s, %s", group,
                  c.lifting ? "lifting" : "conv", int(c.in_fields), int(c.out_fields), c.banks, c.size, int(c.stride),
                  int(c.padding), int(c.dilation), int(c.spread), c.format ? " last" : "", cpu::name(level));
    compare(what, y, want);
    if (c.spread == 1) compare(what, grad_weight, want_grad);
  }
}

}  // namespace

int main() {
  const auto Rows = Case::Rows, ElementsLast = Case::ElementsLast, FieldsLast = Case::FieldsLast;
  const Case cases[] = {
      {false, 2, 1, 3, 5, 7, 9, 3, 1, 1, 1, 1, Rows},
      {false, 1, 2, 2, 13, 6, 5, 3, 1, 1, 1, 1, ElementsLast},
      {false, 1, 1, 1, 2, 1, 1, 1, 1, 0, 1, 1, Rows},
      {false, 1, 1, 2, 26, 5, 8, 2, 2, 1, 1, 1, Rows},
      {false, 1, 1, 2, 3, 9, 7, 5, 1, 2, 2, 1, Rows},
      {false, 3, 1, 2, 3, 4, 5, 3, 1, 2, 1, 2, Rows},
      {false, 1, 1, 2, 3, 4, 5, 3, 1, 0, 2, 3, ElementsLast},
      {false, 1, 1, 2, 3, 5, 4, 1, 1, 0, 1, 2, FieldsLast},
      {false, 1, 2, 2, 19, 5, 4, 2, 1, 1, 1, 2, Rows, 2, true},
      {false, 1, 1, 2, 3, 9, 20, 1, 1, -1, 1, 1, Rows},
      {false, 1, 1, 1, 3, 4, 40, 3, 3, 3, 1, 1, ElementsLast},
      {false, 1, 1, 9, 17, 4, 18, 3, 1, 1, 1, 1, FieldsLast},
      {false, 1, 2, 2, 3, 5, 6, 3, 1, 1, 1, 1, Rows, 3, false},
      {false, 1, 1, 2, 3, 5, 6, 3, 1, 1, 1, 1, Rows, 2, true},
      {true, 1, 1, 2, 5, 5, 6, 3, 1, 1, 1, 1, ElementsLast, 2, false},
      {false, 1, 1, 2, 3, 5, 20, 3, 1, 1, 1, 1, Rows, 1, false, true},
      {false, 1, 1, 9, 5, 5, 20, 3, 1, 1, 1, 2, FieldsLast, 1, false, true},
      {false, 1, 1, 2, 3, 7, 20, 3, 2, 1, 1, 1, Rows, 1, false, true},
      {true, 2, 1, 3, 5, 7, 9, 3, 1, 1, 1, 1, Rows},
      {true, 1, 1, 1, 7, 8, 8, 4, 2, 1, 1, 1, ElementsLast},
      {false, 1, 1, 2, 3, 5, 41, 1, 2, 0, 1, 1, Rows},
      {false, 1, 1, 2, 3, 6, 70, 3, 2, 1, 1, 1, Rows},
      // Many output fields, rows that end within vectors.
      {false, 5, 1, 2, 40, 13, 13, 5, 1, 2, 1, 1, Rows},
      {false, 4, 1, 1, 48, 9, 15, 3, 2, 0, 1, 1, FieldsLast},
      {false, 3, 1, 1, 50, 6, 27, 3, 1, 0, 1, 1, ElementsLast},
      {true, 9, 1, 1, 64, 7, 7, 3, 1, 1, 1, 1, Rows, 2, false},
      // Results stored from registers, in one run or two; tiles in which rows end, or images.
      {false, 2, 1, 1, 6, 5, 28, 3, 1, 1, 1, 1, Rows},
      {false, 2, 2, 2, 2, 4, 29, 3, 1, 1, 1, 1, Rows},
      {true, 2, 1, 2, 16, 6, 15, 3, 1, 0, 1, 1, Rows, 1, false, true},
      {false, 7, 1, 1, 17, 4, 14, 3, 1, 1, 1, 1, Rows},
      {false, 5, 1, 1, 16, 3, 20, 3, 1, 0, 1, 1, Rows, 2, true},
      {false, 3, 1, 1, 7, 4, 22, 5, 1, 1, 1, 1, Rows},
      // Output fields that fill the lanes of wgrad.
      {false, 2, 1, 2, 16, 12, 20, 3, 1, 1, 1, 1, Rows},
      {false, 3, 2, 1, 31, 9, 14, 3, 1, 1, 1, 1, FieldsLast, 2, false},
      {true, 2, 1, 2, 15, 23, 11, 4, 2, 1, 1, 1, ElementsLast, 1, false, true},
      {false, 9, 1, 33, 32, 3, 4, 2, 1, 0, 1, 1, Rows, 2, true},
      // Small images lie one behind the other or side by side; wgrad cuts the input's fields from 32 on.
      {false, 17, 1, 2, 3, 5, 4, 3, 1, 1, 1, 1, Rows},
      {false, 19, 1, 2, 3, 7, 6, 3, 2, 1, 1, 1, FieldsLast, 1, false, true},
      {true, 17, 2, 1, 5, 5, 5, 3, 1, 1, 1, 1, ElementsLast},
      {false, 18, 1, 2, 3, 6, 7, 3, 1, 1, 1, 1, Rows, 1, false, true},
      {false, 16, 1, 1, 2, 8, 8, 3, 1, 1, 1, 1, Rows, 1, false, true},
      {false, 33, 1, 2, 3, 3, 2, 3, 1, 1, 1, 1, Rows, 1, false, true},
      {true, 10, 2, 2, 3, 7, 7, 5, 1, 2, 1, 1, Rows},
      {false, 9, 1, 2, 2, 5, 5, 3, 1, 1, 2, 1, Rows, 2, false},
      {false, 7, 1, 35, 2, 4, 3, 2, 1, 0, 1, 1, Rows, 2, true},
  };
  const auto levels = instruction_sets();
  for (const char* group : {"C1", "C2", "C4", "D1", "D2", "D4"})
    for (const Case& c : cases) {
      check<float>(group, c, cpu::ScalarType::Float32, levels);
      check<cpu::BFloat16>(group, c, cpu::ScalarType::BFloat16, levels);
#ifndef GCONV_FEW_TYPES
      check<double>(group, c, cpu::ScalarType::Float64, levels);
      check<cpu::Float16>(group, c, cpu::ScalarType::Float16, levels);
#endif
    }
  return report(levels);
}
