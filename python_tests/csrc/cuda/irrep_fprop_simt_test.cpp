// The exact path of irrep_fprop against the sum written out from conv_shape.h's equation, as a convolution and as the
// transpose of one: values, every number written, nothing read or written outside (under AddressSanitizer). The same
// bits by tiles of any width, from Ψ̂ at any address, and from ψ, which the blocks transform. And y(g·x) == g·y(x), bit
// for bit.
#include "cuda/irrep_fprop_simt.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>

#include "csrc/testing.h"
#include "irrep_tables.h"

using namespace gconv;
using namespace testing;

namespace {

enum class Format { Rows, ElementsLast, FieldsLast, Sparse };  // Sparse: nothing is contiguous

struct Case {
  bool lifting, adjoint;
  int64_t batch, blocks, in_fields, out_fields, height, width;  // of the convolution, and of its x
  int size;
  int64_t stride, padding, dilation;
  Format format, y_format = format;
  int banks = 1;  // more than one: relaxed
  bool relax_input = false;
  bool activated = false;
  bool relu = false;
};

struct Map {
  int64_t fields, elements, height, width;
  MapStrides strides;

  int64_t numbers(int64_t batch) const { return batch * strides.batch; }
  int64_t at(int64_t b, int64_t f, int64_t e, int64_t r, int64_t c) const {
    return b * strides.batch + f * strides.field + e * strides.element + r * strides.row + c * strides.column;
  }
  void for_each(int64_t batch, const std::function<void(int64_t, int64_t, int, int64_t, int64_t)>& call) const {
    for (int64_t b = 0; b < batch; ++b)
      for (int64_t f = 0; f < fields; ++f)
        for (int e = 0; e < elements; ++e)
          for (int64_t r = 0; r < height; ++r)
            for (int64_t c = 0; c < width; ++c) call(b, f, e, r, c);
  }
};

Map make_map(Format format, int64_t fields, int64_t elements, int64_t height, int64_t width) {
  Map map{fields, elements, height, width, {}};
  const int64_t planes = fields * elements, pixels = height * width;
  switch (format) {
    case Format::Rows: map.strides = {planes * pixels, elements * pixels, pixels, width, 1}; break;
    case Format::ElementsLast: map.strides = {planes * pixels, elements, 1, width * planes, planes}; break;
    case Format::FieldsLast: map.strides = {planes * pixels, 1, pixels * fields, width * fields, fields}; break;
    case Format::Sparse: map.strides = {planes * pixels * 6, elements * pixels * 6, pixels * 6, width * 6, 3}; break;
  }
  if (elements == 1) map.strides.element = 0;
  return map;
}

// A convolution, and what it is to irrep_fprop_simt.
struct Problem {
  ConvShape forward, shape;
  Map x, y;  // of `shape`
  int64_t banks;
  bool adjoint;

  Problem(const char* group, const Case& c) : banks(c.banks), adjoint(c.adjoint) {
    ConvShape& s = forward;
    s.group = find_group(group);
    s.lifting = c.lifting, s.batch = c.batch, s.groups = c.blocks, s.in_fields = c.in_fields;
    s.out_fields = c.out_fields, s.size = c.size;
    for (auto [axis, in] : {std::pair{&s.rows, c.height}, std::pair{&s.columns, c.width}}) {
      *axis = {in, 0, c.stride, c.padding, c.dilation};
      axis->out = (in + 2 * c.padding - c.dilation * (c.size - 1) - 1) / c.stride + 1;
    }
    shape = s;
    if (c.adjoint) {
      std::swap(shape.in_fields, shape.out_fields);
      for (Axis* axis : {&shape.rows, &shape.columns})
        *axis = {axis->out, axis->in, 1, c.dilation * (c.size - 1) - c.padding, c.dilation, c.stride};
    }
    x = make_map(c.format, c.blocks * shape.in_fields, s.in_elements(), shape.rows.in, shape.columns.in);
    y = make_map(c.y_format, c.blocks * shape.out_fields, s.order(), shape.rows.out, shape.columns.out);
  }

  int64_t block() const { return forward.in_elements() * forward.taps(); }
  int64_t weight_numbers() const { return banks * forward.groups * forward.out_fields * forward.in_fields * block(); }

  // ψ as `shape` has it: of an adjoint ψ'[c, o, a, b] = ψ[o, c, a⁻¹, −a⁻¹b].
  template <typename T>
  T weight(const std::vector<T>& numbers, int64_t bank, int64_t block_of_fields, int64_t out, int64_t in, int element,
           int tap) const {
    const ConvShape& s = forward;
    if (adjoint) {
      const int inverse = s.group->inverse[element];
      tap = static_cast<int>(s.taps()) - 1 - moved_tap(s.group->matrices[inverse], tap, s.size);
      element = inverse;
      std::swap(out, in);
    }
    const int64_t row = (bank * s.groups + block_of_fields) * s.out_fields + out;
    return numbers[(row * s.in_fields + in) * block() + element * s.taps() + tap];
  }
};

// Ψ̂ [bank, block of fields, orbit, plane, in field, out field].
template <typename T>
std::vector<T> transformed_weight(const Problem& problem, const std::vector<T>& weight) {
  const ConvShape& s = problem.shape;
  const int order = static_cast<int>(s.order());
  ConvShape unspread = s;  // all orbits, whatever they read
  unspread.rows.spread = unspread.columns.spread = 1;
  std::vector<T> transformed;
  for (int64_t bank = 0; bank < problem.banks; ++bank)
    for (int64_t block = 0; block < s.groups; ++block)
      for (const Orbit& orbit : orbits(unspread)) {
        const size_t start = transformed.size();
        const int64_t plane_numbers = s.in_fields * s.out_fields;
        transformed.resize(start + order * plane_numbers);
        for (int64_t in = 0; in < s.in_fields; ++in)
          for (int64_t out = 0; out < s.out_fields; ++out) {
            T f[kMaxOrder];
            for (int g = 0; g < order; ++g) {
              const int tap = moved_tap(s.group->matrices[g], orbit.tap, s.size);
              f[g] = problem.weight(weight, bank, block, out, in, s.lifting ? 0 : g, tap) / T(orbit.stabiliser);
            }
            with_fourier_table(s.group->name, [&](auto group) {
              for (const Butterfly& step : decltype(group)::table.butterflies) {
                const T a = f[step.a], b = f[step.b];
                f[step.a] = a + b, f[step.b] = step.turned ? b - a : a - b;
              }
            });
            for (int plane = 0; plane < order; ++plane)
              transformed[start + plane * plane_numbers + in * s.out_fields + out] = f[plane];
          }
      }
  return transformed;
}

// call(bank, out field, in field, element of y, element of x, row and column of x, index in ψ) for each term of output
// pixel (row, column) of `forward`, those outside x left out.
template <typename Call>
void for_each_term(const Problem& problem, int64_t row, int64_t column, Call call) {
  const ConvShape& s = problem.forward;
  for (int u = 0; u < s.order(); ++u)
    for (int w = 0; w < s.in_elements(); ++w)
      for (int tap = 0; tap < s.taps(); ++tap) {
        const int v = s.lifting ? 0 : s.group->product[u][w], t = moved_tap(s.group->matrices[u], tap, s.size);
        const int64_t r = row * s.rows.stride + t / s.size * s.rows.dilation - s.rows.padding;
        const int64_t q = column * s.columns.stride + t % s.size * s.columns.dilation - s.columns.padding;
        if (r < 0 || q < 0 || r >= s.rows.in || q >= s.columns.in) continue;
        for (int64_t bank = 0; bank < problem.banks; ++bank)
          for (int64_t block = 0; block < s.groups; ++block)
            for (int64_t o = 0; o < s.out_fields; ++o)
              for (int64_t i = 0; i < s.in_fields; ++i)
                call(bank, block * s.out_fields + o, block * s.in_fields + i, u, v, r, q,
                     (((bank * s.groups + block) * s.out_fields + o) * s.in_fields + i) * problem.block() +
                         w * s.taps() + tap);
      }
}

template <typename T>
void check(const char* group, const Case& c) {
  uint64_t state = 100 * c.size + 10 * c.in_fields + c.out_fields;
  const Problem problem(group, c);
  const ConvShape& s = problem.shape;
  const Map &in = problem.x, &out = problem.y;
  const auto x = random_numbers<T>(in.numbers(c.batch), state);
  auto activated = random_numbers<T>(x.size(), state);
  if (!activated.empty()) activated[activated.size() / 2] = NAN;
  const auto weight = random_numbers<T>(problem.weight_numbers(), state);
  const auto relaxed_weight = random_numbers<T>(c.banks * s.order(), state);
  auto bias = random_numbers<T>(out.fields, state);
  if (c.relu) bias[out.fields - 1] = NAN;  // passes through
  const auto transformed = transformed_weight(problem, weight);
  std::vector<T> shifted(transformed.size() + 1);
  std::copy(transformed.begin(), transformed.end(), shifted.begin() + 1);
  std::vector<T> y(out.numbers(c.batch), NAN);

  cuda::IrrepFpropParams params;
  params.shape = s, params.type = std::is_same_v<T, double> ? ScalarType::Float64 : ScalarType::Float32;
  params.adjoint = c.adjoint, params.banks = c.banks, params.relax_input = c.relax_input;
  params.x = x.data(), params.x_strides = in.strides, params.x_activated = c.activated ? activated.data() : nullptr;
  params.relaxed_weight = c.banks > 1 ? relaxed_weight.data() : nullptr, params.bias = bias.data();
  params.relu = c.relu, params.y = y.data(), params.y_strides = out.strides;
  params.weight = weight.data();
  if (cuda::irrep_fprop_simt(params, transformed.data(), nullptr)) ++failures, std::puts("launch failed");
  const auto name = [&] {
    static char text[200];
    std::snprintf(text, sizeof text, "%s %s%s %d->%d k=%d s=%d d=%d L=%d, formats %d %d, %d bytes", group,
                  c.lifting ? "lifting" : "conv", c.adjoint ? " adjoint" : "", int(c.in_fields), int(c.out_fields),
                  c.size, int(c.stride), int(c.dilation), c.banks, int(c.format), int(c.y_format), int(sizeof(T)));
    return text;
  };
  std::vector<T> again(y.size());
  params.y = again.data();
  const auto expect_same = [&](const char* from, int width, const auto& launch) {
    std::fill(again.begin(), again.end(), NAN);
    if (launch()) ++failures, std::puts("launch failed");
    if (!y.empty() && std::memcmp(y.data(), again.data(), y.size() * sizeof(T)) && ++failures < 20)
      std::printf("%s: other bits from %s by tiles of %d fields\n", name(), from, width);
  };
  for (int width : {0, 8, 16, 32, 64}) {
    if (sizeof(T) == 8 && width) break;
    expect_same("Ψ̂", width, [&] { return cuda::irrep_fprop_simt(params, transformed.data(), nullptr, width); });
    expect_same("ψ", width, [&] { return cuda::irrep_fprop_simt(params, nullptr, nullptr, width); });
  }
  expect_same("Ψ̂ anywhere", 0, [&] { return cuda::irrep_fprop_simt(params, shifted.data() + 1, nullptr); });
  std::vector<T> workspace(cuda::irrep_fprop_workspace(params) / sizeof(T), NAN);
  params.workspace = workspace.data();
  expect_same("irrep_fprop", 0, [&] { return cuda::irrep_fprop(params, nullptr); });

  std::vector<double> want(y.size(), NAN);
  out.for_each(c.batch,
               [&](int64_t b, int64_t f, int e, int64_t r, int64_t q) { want[out.at(b, f, e, r, q)] = bias[f]; });
  const auto x_number = [&](int64_t at) { return c.activated && activated[at] <= 0 ? 0.0 : double{x[at]}; };
  const ConvShape& fwd = problem.forward;
  for (int64_t b = 0; b < c.batch; ++b)
    for (int64_t row = 0; row < fwd.rows.out; ++row)
      for (int64_t column = 0; column < fwd.columns.out; ++column)
        for_each_term(problem, row, column,
                      [&](int64_t bank, int64_t o, int64_t i, int u, int v, int64_t r, int64_t q, int64_t from) {
                        // The relaxed weight stands at an element of the map that `shape` reads, or of that it writes.
                        const int element = c.relax_input != c.adjoint ? v : u;
                        const double term =
                            double{weight[from]} * (c.banks > 1 ? relaxed_weight[bank * s.order() + element] : T{1});
                        if (c.adjoint)
                          want[out.at(b, i, v, r, q)] += term * x_number(in.at(b, o, u, row, column));
                        else
                          want[out.at(b, o, u, row, column)] += term * x_number(in.at(b, i, v, r, q));
                      });
  double largest = 0;
  for (double& number : want) {
    if (c.relu && number < 0) number = 0;
    if (std::isfinite(number)) largest = std::max(largest, std::abs(number));
  }
  const double tolerance = std::is_same_v<T, double> ? 1e-13 : 1e-5;
  for (size_t i = 0; i < want.size(); ++i) {  // what lies between the numbers of a sparse map is not to be written
    if (std::isnan(want[i]) ? std::isnan(y[i]) : std::abs(y[i] - want[i]) <= tolerance * largest) continue;
    if (++failures < 20) std::printf("%s [%zu]: got %.9g, expected %.9g\n", name(), i, double(y[i]), want[i]);
    return;
  }
}

// g·f of a square map: (g·f)[g·v, g·p] = f[v, p].
template <typename T>
std::vector<T> moved(const Map& map, const PointGroup& group, int g, int64_t batch, const std::vector<T>& numbers) {
  std::vector<T> result(numbers.size());
  const int size = static_cast<int>(map.height);
  map.for_each(batch, [&](int64_t b, int64_t f, int e, int64_t r, int64_t q) {
    const int to = moved_tap(group.matrices[g], static_cast<int>(r * size + q), size);
    result[map.at(b, f, map.elements == 1 ? 0 : group.product[g][e], to / size, to % size)] =
        numbers[map.at(b, f, e, r, q)];
  });
  return result;
}

template <typename T>
void check_equivariance(const char* group, const Case& c) {
  uint64_t state = 7;
  const Problem problem(group, c);
  const auto x = random_numbers<T>(problem.x.numbers(c.batch), state);
  const auto transformed = transformed_weight(problem, random_numbers<T>(problem.weight_numbers(), state));
  const auto bias = random_numbers<T>(problem.y.fields, state);
  const int order = static_cast<int>(problem.shape.order());
  std::vector<T> relaxed_weight(c.banks * order);  // the same for all elements, and no power of two
  for (int i = 0; i < c.banks * order; ++i) relaxed_weight[i] = T(0.3) + T(0.4) * T(i / order);
  const auto result = [&](const std::vector<T>& map) {
    std::vector<T> y(problem.y.numbers(c.batch), NAN);
    cuda::IrrepFpropParams params;
    params.shape = problem.shape, params.type = sizeof(T) == 8 ? ScalarType::Float64 : ScalarType::Float32;
    params.banks = c.banks, params.relax_input = c.relax_input;
    params.relaxed_weight = c.banks > 1 ? relaxed_weight.data() : nullptr;
    params.x = map.data(), params.x_strides = problem.x.strides, params.bias = bias.data(), params.relu = c.relu;
    params.y = y.data(), params.y_strides = problem.y.strides;
    if (cuda::irrep_fprop_simt(params, transformed.data(), nullptr)) ++failures, std::puts("launch failed");
    return y;
  };
  const auto y = result(x);
  const PointGroup& P = *problem.shape.group;
  for (int g = 1; g < P.order; ++g)
    if (result(moved(problem.x, P, g, c.batch, x)) != moved(problem.y, P, g, c.batch, y) && ++failures < 20)
      std::printf("%s, element %d: not equivariant%s%s\n", group, g, c.lifting ? ", lifting" : "",
                  c.adjoint ? ", adjoint" : "");
}

}  // namespace

int main() {
  const Format Rows = Format::Rows, ElementsLast = Format::ElementsLast, FieldsLast = Format::FieldsLast,
               Sparse = Format::Sparse;
  const Case cases[] = {
      // lifting, adjoint; batch, blocks, in -> out fields, height × width; size, stride, padding, dilation; formats
      {false, false, 1, 2, 3, 5, 7, 9, 3, 1, 1, 1, Rows},
      {false, false, 2, 1, 8, 10, 5, 6, 3, 1, 1, 1, FieldsLast},
      {false, false, 1, 1, 10, 17, 6, 5, 3, 2, 1, 1, FieldsLast, Rows},
      {false, false, 1, 1, 5, 33, 5, 5, 3, 1, 2, 2, Rows, FieldsLast},
      {false, false, 1, 1, 1, 1, 5, 8, 2, 2, 1, 1, Sparse},
      {false, false, 1, 2, 4, 32, 4, 5, 1, 1, 0, 1, FieldsLast},
      {false, false, 1, 1, 2, 3, 9, 7, 5, 3, 2, 1, ElementsLast},
      {false, false, 2, 1, 2, 9, 14, 13, 2, 1, 0, 1, Rows},
      {false, true, 2, 1, 5, 3, 7, 6, 3, 1, 1, 1, Rows},
      {false, true, 1, 2, 9, 4, 7, 8, 3, 2, 1, 1, FieldsLast},
      {false, true, 1, 1, 33, 2, 8, 7, 3, 3, 0, 1, Rows, FieldsLast},
      {false, true, 1, 1, 3, 5, 9, 8, 4, 2, 2, 1, ElementsLast, Rows},
      {false, true, 1, 1, 3, 5, 9, 8, 3, 2, 1, 2, Rows},
      {false, true, 1, 1, 3, 5, 5, 4, 1, 3, 0, 1, FieldsLast},
      {true, false, 1, 1, 3, 5, 7, 9, 3, 1, 1, 1, Rows},
      {true, false, 1, 2, 4, 17, 6, 6, 4, 2, 1, 1, FieldsLast},
      {true, false, 2, 1, 1, 6, 8, 8, 5, 1, 2, 1, FieldsLast, Rows, 2},
      {false, false, 1, 1, 5, 10, 5, 6, 3, 1, 1, 1, Rows, Rows, 3},
      {false, false, 1, 2, 4, 5, 5, 6, 3, 1, 1, 1, FieldsLast, FieldsLast, 2, true, false, true},
      {false, true, 1, 1, 4, 5, 5, 6, 3, 2, 1, 1, Rows, FieldsLast, 2, false, true},
      {false, true, 1, 1, 4, 8, 5, 6, 3, 1, 1, 1, FieldsLast, Rows, 2, true, true},
      {false, false, 1, 1, 4, 10, 6, 6, 3, 1, 1, 1, Rows, FieldsLast, 1, false, false, true},
      {false, true, 1, 1, 8, 4, 5, 6, 3, 1, 1, 1, FieldsLast, FieldsLast, 1, false, true},
      {false, false, 0, 1, 3, 4, 5, 5, 3, 1, 1, 1, Rows},
  };
  const Case equivariant[] = {
      {false, false, 1, 1, 6, 5, 6, 6, 3, 1, 1, 1, Rows},
      {false, false, 1, 1, 5, 10, 7, 7, 3, 2, 1, 1, FieldsLast, Rows, 1, false, false, true},
      {false, false, 1, 1, 4, 20, 5, 5, 2, 1, 1, 1, FieldsLast},
      {false, true, 1, 1, 5, 9, 7, 7, 3, 2, 1, 1, Rows},
      {false, true, 1, 1, 9, 20, 6, 6, 3, 1, 1, 1, FieldsLast},
      {true, false, 1, 1, 3, 10, 6, 6, 3, 1, 1, 1, Rows},
      {false, false, 1, 1, 6, 5, 6, 6, 3, 1, 1, 1, Rows, FieldsLast, 2, true},
      {false, false, 1, 1, 6, 5, 6, 6, 3, 1, 1, 1, FieldsLast, Rows, 3, false},
  };
  for (const char* group : {"C1", "C2", "C4", "D1", "D2", "D4"}) {
    for (const Case& c : cases) check<float>(group, c), check<double>(group, c);
    for (const Case& c : equivariant) check_equivariance<float>(group, c), check_equivariance<double>(group, c);
  }
  std::printf("%d failures\n", failures);
  return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
