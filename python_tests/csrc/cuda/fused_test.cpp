// The fused dense form by CUDA, run on the CPU: all three passes against the sum written out from filter_shape.h's
// equation.
#include "cuda/fused.h"

#include <cmath>
#include <cstdio>

#include "csrc/testing.h"

using namespace gconv;
using namespace testing;

namespace {

enum class Format { Rows, ElementsLast, FieldsLast };
enum class Relax { None, Input, Output };
constexpr Format Rows = Format::Rows, ElementsLast = Format::ElementsLast, FieldsLast = Format::FieldsLast;

struct Case {
  int64_t batch = 1, groups = 1, in_fields = 3, out_fields = 5, height = 5, width = 6;
  int size = 3;
  int64_t stride = 1, padding = 1, dilation = 1;
  Format format = FieldsLast;
  bool lifting = false;
  Relax relax = Relax::None;
  int banks = 2;           // of a relaxed layer
  bool activated = false;  // the gradients pass where a result was above 0; fprop has a ReLU
};

MapStrides strides_of(const Case& c, int64_t fields, int64_t elements, int64_t height, int64_t width) {
  const int64_t planes = fields * elements;
  if (c.format == ElementsLast) return {height * width * planes, elements, 1, width * planes, planes};
  if (c.format == FieldsLast) return {height * width * planes, 1, height * width * fields, width * fields, fields};
  return {planes * height * width, elements * height * width, height * width, width, 1};
}

template <typename T>
struct Layer {
  Layer(const char* group, const Case& c) : c(c) {
    s.group = find_group(group);
    s.lifting = c.lifting;
    s.batch = c.batch, s.groups = c.groups, s.in_fields = c.in_fields, s.out_fields = c.out_fields, s.size = c.size;
    for (auto [axis, in] : {std::pair{&s.rows, c.height}, std::pair{&s.columns, c.width}}) {
      *axis = {in, 0, c.stride, c.padding, c.dilation};
      axis->out = (in + 2 * c.padding - c.dilation * (c.size - 1) - 1) / c.stride + 1;
    }
    xs = strides_of(c, c.groups * c.in_fields, s.in_elements(), c.height, c.width);
    ys = strides_of(c, c.groups * c.out_fields, s.order(), s.rows.out, s.columns.out);
    banks = relaxed() ? c.banks : 1;
    uint64_t state = c.size + c.in_fields + 1;
    x = random_numbers<T>(c.batch * xs.batch, state), dy = random_numbers<T>(c.batch * ys.batch, state);
    activated = random_numbers<T>(dy.size(), state);
    if (!activated.empty()) activated[0] = cpu::narrow<T>(NAN);
    weight = random_numbers<T>(banks * bank(), state);
    relaxed_weight = random_numbers<T>(banks * s.order(), state);
    bias = random_numbers<T>(c.groups * c.out_fields, state);
  }

  bool relaxed() const { return c.relax != Relax::None; }
  int64_t bank() const { return c.groups * c.out_fields * c.in_fields * s.in_elements() * s.taps(); }

  // What the passes should give, in double: y without bias, dx and dψ.
  void expect() {
    y_want.assign(dy.size(), 0), dx_want.assign(x.size(), 0), dweight_want.assign(weight.size(), 0);
    const auto& group = *s.group;
    for (int64_t b = 0; b < c.batch; ++b)
      for (int64_t o = 0; o < c.groups * c.out_fields; ++o)
        for (int u = 0; u < s.order(); ++u)
          for (int64_t p = 0; p < s.rows.out; ++p)
            for (int64_t q = 0; q < s.columns.out; ++q) {
              const int64_t at_y = b * ys.batch + o * ys.field + u * ys.element + p * ys.row + q * ys.column;
              const bool counts = !c.activated || !(cpu::widen(activated[at_y]) <= 0);
              const double gradient = counts ? cpu::widen(dy[at_y]) : 0;
              for (int v = 0; v < s.in_elements(); ++v)
                for (int tap = 0; tap < s.taps(); ++tap) {
                  const int64_t row = p * c.stride + tap / c.size * c.dilation - c.padding;
                  const int64_t column = q * c.stride + tap % c.size * c.dilation - c.padding;
                  if (row < 0 || column < 0 || row >= c.height || column >= c.width) continue;
                  const int back = group.inverse[u], w = c.lifting ? 0 : group.product[back][v];
                  const int from = moved_tap(group.matrices[back], tap, c.size);
                  for (int64_t i = 0; i < c.in_fields; ++i) {
                    const int64_t field = o / c.out_fields * c.in_fields + i;
                    const int64_t at_x = b * xs.batch + field * xs.field + (c.lifting ? 0 : v * xs.element) +
                                         row * xs.row + column * xs.column;
                    for (int l = 0; l < banks; ++l) {
                      const int64_t at = l * bank() + ((o * c.in_fields + i) * s.in_elements() + w) * s.taps() + from;
                      double scale = 1;
                      if (relaxed())
                        scale = cpu::widen(relaxed_weight[l * s.order() + (c.relax == Relax::Input ? v : u)]);
                      y_want[at_y] += scale * cpu::widen(weight[at]) * cpu::widen(x[at_x]);
                      dx_want[at_x] += scale * cpu::widen(weight[at]) * gradient;
                      dweight_want[at] += scale * cpu::widen(x[at_x]) * gradient;
                    }
                  }
                }
            }
    for (int64_t b = 0; b < c.batch; ++b)
      for (int64_t o = 0; o < c.groups * c.out_fields; ++o)
        for (int u = 0; u < s.order(); ++u)
          for (int64_t p = 0; p < s.rows.out; ++p)
            for (int64_t q = 0; q < s.columns.out; ++q) {
              double& y = y_want[b * ys.batch + o * ys.field + u * ys.element + p * ys.row + q * ys.column];
              y += cpu::widen(bias[o]);
              if (c.activated) y = std::max(y, 0.);
            }
  }

  static void report(cudaError_t error) {
    if (error) ++failures, std::puts(cudaGetErrorString(error));
  }

  std::vector<T> fprop(ScalarType type, bool tf32) const {
    std::vector<T> y(dy.size(), cpu::narrow<T>(NAN));
    cuda::FusedFpropParams p;
    p.shape = s, p.type = type, p.tf32 = tf32, p.banks = banks, p.relax_input = c.relax == Relax::Input;
    p.x = x.data(), p.x_strides = xs, p.y = y.data(), p.y_strides = ys;
    p.weight = weight.data(), p.relaxed_weight = relaxed() ? relaxed_weight.data() : nullptr;
    p.bias = bias.data(), p.relu = c.activated;
    report(cuda::fused_fprop(p, nullptr));
    return y;
  }

  std::vector<T> dgrad(ScalarType type, bool tf32) const {
    std::vector<T> dx(x.size(), cpu::narrow<T>(NAN));
    cuda::FusedFpropParams p;
    p.shape = s, p.type = type, p.tf32 = tf32, p.banks = banks, p.relax_input = c.relax == Relax::Output;
    p.adjoint = true;
    std::swap(p.shape.in_fields, p.shape.out_fields);
    for (Axis* axis : {&p.shape.rows, &p.shape.columns})
      *axis = {axis->out, axis->in, 1, c.dilation * (c.size - 1) - c.padding, c.dilation, axis->stride};
    p.x = dy.data(), p.x_activated = c.activated ? activated.data() : nullptr, p.x_strides = ys;
    p.weight = weight.data(), p.relaxed_weight = relaxed() ? relaxed_weight.data() : nullptr;
    p.y = dx.data(), p.y_strides = xs;
    report(cuda::fused_fprop(p, nullptr));
    return dx;
  }

  std::vector<T> wgrad(ScalarType type, bool tf32) const {
    std::vector<T> dweight(weight.size(), cpu::narrow<T>(NAN));
    cuda::FusedWgradParams p;
    p.shape = s, p.type = type, p.tf32 = tf32, p.banks = banks, p.relax_input = c.relax == Relax::Input;
    p.x = x.data(), p.x_strides = xs, p.dy = dy.data(), p.dy_strides = ys;
    p.dy_activated = c.activated ? activated.data() : nullptr;
    p.relaxed_weight = relaxed() ? relaxed_weight.data() : nullptr;
    p.grad_weight = dweight.data();
    std::vector<double> workspace((cuda::fused_wgrad_workspace(p) + 7) / 8, NAN);
    p.workspace = workspace.data();
    report(cuda::fused_wgrad(p, nullptr));
    return dweight;
  }

  Case c;
  ConvShape s;
  MapStrides xs, ys;
  int banks;
  std::vector<T> x, dy, activated, weight, relaxed_weight, bias;
  std::vector<double> y_want, dx_want, dweight_want;
};

// Relative to the largest number: the result is rounded once, of which twice is allowed. An operand that is rounded,
// the relaxed sum to the type or any to tf32, adds as much; the signs of such errors vary from product to product.
template <typename T>
double tolerance(bool tf32) {
  if (std::is_same_v<T, double>) return 1e-13;
  return (tf32 ? 2 * 0x1p-11 : std::is_same_v<T, float> ? 0 : 3 * half_ulp<T>()) + 1e-5;
}

template <typename T>
void compare(const char* pass, const char* group, const Case& c, ScalarType type, bool tf32, const std::vector<T>& got,
             const std::vector<double>& want) {
  double largest = 0, worst = 0;
  for (double number : want) largest = std::max(largest, std::abs(number));
  for (size_t i = 0; i < want.size(); ++i) {
    const double difference = std::abs(cpu::widen(got[i]) - want[i]);
    if (!(difference <= worst)) worst = difference;  // NaN stays
  }
  if (worst <= tolerance<T>(tf32) * largest) return;
  if (++failures < 20)
    std::printf(
        "%s %s%s %d x %d->%d of %dx%d k=%d s=%d p=%d d=%d format %d relax %d type %d tf32 %d: off by %.2g of %.2g\n",
        pass, group, c.lifting ? " lifting" : "", int(c.groups), int(c.in_fields), int(c.out_fields), int(c.height),
        int(c.width), c.size, int(c.stride), int(c.padding), int(c.dilation), int(c.format), int(c.relax), int(type),
        tf32, worst, largest);
}

template <typename T>
Layer<T> check_fprop(const char* group, const Case& c, ScalarType type, bool tf32 = false) {
  Layer<T> layer(group, c);
  layer.expect();
  compare("fprop", group, c, type, tf32, layer.fprop(type, tf32), layer.y_want);
  return layer;
}

template <typename T>
void check(const char* group, const Case& c, ScalarType type, bool tf32 = false) {
  const Layer<T> layer = check_fprop<T>(group, c, type, tf32);
  compare("dgrad", group, c, type, tf32, layer.dgrad(type, tf32), layer.dx_want);
  compare("wgrad", group, c, type, tf32, layer.wgrad(type, tf32), layer.dweight_want);
}

void check_types(const char* group, const Case& c) {
  check<double>(group, c, ScalarType::Float64);
  check<float>(group, c, ScalarType::Float32);
  check<float>(group, c, ScalarType::Float32, true);
  check<cpu::BFloat16>(group, c, ScalarType::BFloat16);
  check<cpu::Float16>(group, c, ScalarType::Float16);
}

std::vector<Case> cases() {
  std::vector<Case> all;
  const auto add = [&](auto change) {
    Case c;
    change(c);
    all.push_back(c);
  };
  // Fields: of whole vectors, of pairs, odd; fewer than a step and more; narrow and wide tiles, and several.
  add([](Case& c) { c.batch = 2, c.in_fields = 8, c.out_fields = 8, c.height = 4; });
  add([](Case& c) { c.in_fields = 20, c.out_fields = 18, c.height = c.width = 3, c.activated = true; });
  add([](Case& c) {
    c.in_fields = 5, c.out_fields = 34, c.height = c.width = 3, c.format = Rows, c.size = 1, c.padding = 0;
  });
  add([](Case& c) { c.in_fields = 4, c.out_fields = 6, c.groups = 2, c.format = ElementsLast, c.activated = true; });
  // Geometry.
  add([](Case& c) { c.size = 2, c.stride = 2, c.in_fields = 4, c.height = 7; });
  add([](Case& c) {
    c.stride = 3, c.padding = 2, c.dilation = 2, c.height = 7, c.width = 8, c.format = Rows, c.activated = true;
  });
  add([](Case& c) { c.stride = 2, c.size = 1, c.padding = 0; });  // phases of dgrad that read nothing
  add([](Case& c) {                                               // more than a block has
    c.batch = 4, c.size = 4, c.padding = 2, c.in_fields = 1, c.out_fields = 2, c.height = 9;
  });
  // Relaxed.
  add([](Case& c) {
    c.relax = Relax::Output, c.banks = 3, c.in_fields = 9, c.out_fields = 10, c.height = 3, c.activated = true;
  });
  add([](Case& c) { c.relax = Relax::Input, c.in_fields = 8, c.out_fields = 4, c.stride = 2, c.groups = 2; });
  // Lifting.
  add([](Case& c) { c.lifting = true, c.in_fields = 3, c.out_fields = 8, c.format = Rows, c.batch = 2; });
  add([](Case& c) {
    c.lifting = true, c.in_fields = 1, c.out_fields = 10, c.size = 4, c.stride = 2, c.activated = true;
  });
  add([](Case& c) {
    c.lifting = true, c.relax = Relax::Output, c.size = 5, c.padding = 2, c.out_fields = 6, c.groups = 2;
  });
  return all;
}

}  // namespace

int main() {
  for (const char* group : {"C1", "C2", "C4", "D1", "D2", "D4"})
    for (const Case& c : cases()) check_types(group, c);
  for (const char* group : {"C4", "D4"}) {
    Case nothing;  // to sum
    nothing.batch = 0;
    check_types(group, nothing);
    Case large;  // so many blocks of threads that they take the larger tiles
    large.groups = 132, large.in_fields = 1, large.out_fields = 9, large.height = 13, large.width = 15;
    large.size = 1, large.padding = 0;
    for (Relax relax : {Relax::None, Relax::Output}) {
      large.relax = relax;
      check_fprop<cpu::BFloat16>(group, large, ScalarType::BFloat16);
    }
    Case shares;
    shares.batch = 9, shares.height = 9, shares.width = 11, shares.size = 1, shares.padding = 0;
    shares.activated = true;
    check<cpu::BFloat16>(group, shares, ScalarType::BFloat16);
    shares.lifting = true, shares.in_fields = 1;
    check<float>(group, shares, ScalarType::Float32);
  }
  std::printf("%d failures\n", failures);
  return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
