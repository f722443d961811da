// irrep fprop and its adjoint on the tensor cores, run on the CPU: against the sum written out from conv_shape.h's
// equation, in one launch and in two, which give the same bits, and bit-exact equivariance.
#include "cuda/irrep.h"
#include "cuda/wgmma_choice.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "csrc/testing.h"

using namespace gconv;
using namespace testing;

namespace {

struct Case {
  bool lifting = false, adjoint = false;
  int64_t batch = 1, groups = 1, in_fields = 6, out_fields = 3, height = 5, width = 6;
  int size = 3;
  int64_t stride = 1, padding = 1, dilation = 1, spread = 1;
  enum { Rows, ElementsLast, FieldsLast } format = FieldsLast;
  int banks = 1;  // more than one: relaxed
  bool relax_input = false, activated = false, relu = false;
  bool wide = false;    // wgmma takes it in 16-bit types of C4 and D4
  bool padded = false;  // and needs a copy of x
};

ConvShape shape_of(const char* group, const Case& c) {
  ConvShape s;
  s.group = find_group(group);
  s.lifting = c.lifting;
  s.batch = c.batch, s.groups = c.groups, s.in_fields = c.in_fields, s.out_fields = c.out_fields, s.size = c.size;
  for (auto [axis, in] : {std::pair{&s.rows, c.height}, std::pair{&s.columns, c.width}}) {
    *axis = {in, 0, c.stride, c.padding, c.dilation, c.spread};
    axis->out = ((in - 1) * c.spread + 2 * c.padding - c.dilation * (c.size - 1)) / c.stride + 1;
  }
  return s;
}

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

int in_one_launch = 0, in_two = 0;  // of those that were not given transformed weights

template <typename T>
struct Layer {
  Layer(const char* group, const Case& c) : c(c), s(shape_of(group, c)) {
    uint64_t state = c.size + c.in_fields + c.out_fields;
    x = random_numbers<T>(c.batch * in_planes() * s.in_elements() * c.height * c.width, state);
    x_activated = random_numbers<T>(x.size(), state);
    weight = random_numbers<T>(c.banks * bank(), state);
    relaxed_weight = random_numbers<T>(c.banks * s.order(), state);
    bias = random_numbers<T>(out_planes(), state);
  }

  int64_t in_planes() const { return c.groups * c.in_fields; }
  int64_t out_planes() const { return c.groups * c.out_fields; }
  int64_t block() const { return s.in_elements() * s.taps(); }
  bool may_take_wgmma() const { return sizeof(T) == 2 && (s.group->name == "C4" || s.group->name == "D4"); }
  int64_t bank() const { return out_planes() * c.in_fields * block(); }
  MapStrides x_strides() const {
    MapStrides strides = strides_of(c, in_planes(), s.in_elements(), c.height, c.width);
    if (c.lifting) strides.element = 0;
    return strides;
  }
  MapStrides y_strides() const { return strides_of(c, out_planes(), s.order(), s.rows.out, s.columns.out); }

  // shift: of transformed weights that are handed in, in numbers from where a vector is aligned; -1: none are.
  std::vector<T> run(ScalarType type, int shift = -1) const {
    const T poison = cpu::narrow<T>(NAN);
    std::vector<T> y(c.batch * out_planes() * s.order() * s.rows.out * s.columns.out, poison);
    cuda::IrrepFpropParams p;
    p.shape = s, p.type = type, p.tf32 = true, p.adjoint = c.adjoint, p.banks = c.banks, p.relax_input = c.relax_input;
    p.x = x.data(), p.x_activated = c.activated ? x_activated.data() : nullptr, p.x_strides = x_strides();
    p.weight = weight.data(), p.relaxed_weight = c.banks > 1 ? relaxed_weight.data() : nullptr, p.bias = bias.data();
    p.relu = c.relu, p.y = y.data(), p.y_strides = y_strides();
    std::vector<T> transformed(shift < 0 ? 0 : shift + cuda::irrep_transformed_numbers(p), poison);
    if (shift >= 0) {
      if (cuda::irrep_transform_weight(p, transformed.data() + shift, nullptr)) ++failures, std::puts("transform");
      p.transformed_weight = transformed.data() + shift;
    }
    std::vector<T> workspace(cuda::irrep_fprop_workspace(p) / sizeof(T), poison);
    p.workspace = workspace.data();
    emulation::machine.launches = 0;
    if (const cudaError_t error = cuda::irrep_fprop(p, nullptr)) ++failures, std::puts(cudaGetErrorString(error));
    const bool padded = c.padded && may_take_wgmma() && cuda::wgmma_allowed();
    if (emulation::machine.launches != (padded ? 3 : workspace.empty() ? 1 : 2))
      ++failures,
          std::printf("%d -> %d: %d launches\n", int(c.in_fields), int(c.out_fields), int(emulation::machine.launches));
    in_one_launch += shift < 0 && workspace.empty(), in_two += !workspace.empty();
    return y;
  }

  double expected(int64_t b, int64_t o, int u, int64_t p, int64_t q) const {
    double sum = cpu::widen(bias[o]);
    for (int64_t i = 0; i < c.in_fields; ++i)
      for (int e = 0; e < s.in_elements(); ++e)
        for (int tap = 0; tap < s.taps(); ++tap) {
          const int v = c.lifting ? 0 : s.group->product[u][e], t = moved_tap(s.group->matrices[u], tap, c.size);
          const int64_t row = p * c.stride + t / c.size * c.dilation - c.padding;
          const int64_t column = q * c.stride + t % c.size * c.dilation - c.padding;
          if (row < 0 || column < 0 || row % c.spread || column % c.spread || row / c.spread >= c.height ||
              column / c.spread >= c.width)
            continue;
          const int64_t block_of = o / c.out_fields, field = block_of * c.in_fields + i;
          const int64_t at_x = at(x_strides(), b, field, v, row / c.spread, column / c.spread);
          if (c.activated && !(cpu::widen(x_activated[at_x]) > 0)) continue;
          const int inverse = s.group->inverse[e];
          const int64_t from = !c.adjoint ? (o * c.in_fields + i) * block() + e * s.taps() + tap
                                          : (field * c.out_fields + o % c.out_fields) * block() + inverse * s.taps() +
                                                s.taps() - 1 - moved_tap(s.group->matrices[inverse], tap, c.size);
          for (int l = 0; l < c.banks; ++l) {
            const double w =
                c.banks > 1 ? double(cpu::widen(relaxed_weight[l * s.order() + (c.relax_input ? v : u)])) : 1;
            sum += w * cpu::widen(x[at_x]) * cpu::widen(weight[l * bank() + from]);
          }
        }
    return c.relu ? std::max(sum, 0.) : sum;
  }

  Case c;
  ConvShape s;
  std::vector<T> x, x_activated, weight, relaxed_weight, bias;
};

// What rounding a number of this size to the type, or float32 to tf32, can change.
template <typename T>
double rounding(double largest) {
  const double step = std::ldexp(1, std::ilogb(largest) + 1);
  return step * (std::is_same_v<T, float> ? 0x1p-12 : half_ulp<T>() / 2);
}

template <typename T>
void check(const char* group, const Case& c, ScalarType type) {
  const Layer<T> layer(group, c);
  emulation::machine.wgmmas = 0;
  const auto y = layer.run(type);
  const auto other = layer.run(type, layer.s.order() > 2 ? 0 : 1);
  const bool expected = layer.may_take_wgmma() && c.wide;
  if ((emulation::machine.wgmmas > 0) != expected && ++failures < 20)
    std::printf("%s %d->%d type %d: wgmma %s\n", group, int(c.in_fields), int(c.out_fields), int(type),
                expected ? "is not taken" : "is taken");
  if (std::memcmp(y.data(), other.data(), y.size() * sizeof(T)) && ++failures < 20)
    std::printf("%s %d->%d type %d: other bits with transformed weights\n", group, int(c.in_fields), int(c.out_fields),
                int(type));
  double error = 0, largest = 0;
  for (int64_t b = 0; b < c.batch; ++b)
    for (int64_t o = 0; o < layer.out_planes(); ++o)
      for (int u = 0; u < layer.s.order(); ++u)
        for (int64_t p = 0; p < layer.s.rows.out; ++p)
          for (int64_t q = 0; q < layer.s.columns.out; ++q) {
            const double want = layer.expected(b, o, u, p, q);
            const double off = std::abs(cpu::widen(y[at(layer.y_strides(), b, o, u, p, q)]) - want);
            error = off <= error ? error : off;  // NaN stays
            largest = std::max(largest, std::abs(want));
          }
  // Rounding y takes one; the butterflies and the filter, each rounded, about as much as plain products of the type do.
  if (error <= 3 * rounding<T>(largest) + 1e-5 * largest) return;
  if (++failures < 20)
    std::printf(
        "%s %s%s %d->%d G=%d L=%d k=%d s=%d p=%d d=%d spread=%d format %d type %d: error %.3g, of rounding %.3g\n",
        group, c.lifting ? "lifting" : "conv", c.adjoint ? " adjoint" : "", int(c.in_fields), int(c.out_fields),
        int(c.groups), c.banks, c.size, int(c.stride), int(c.padding), int(c.dilation), int(c.spread), c.format,
        int(type), error, rounding<T>(largest));
}

// y(g·x) and g·y(x) to the bit, where (g·x)[v, p] = x[g⁻¹v, g⁻¹p].
template <typename T>
void check_equivariance(const char* group, const Case& c, ScalarType type) {
  Layer<T> layer(group, c);
  // The same for all elements, and no power of two.
  for (int i = 0; i < c.banks * layer.s.order(); ++i)
    layer.relaxed_weight[i] = cpu::narrow<T>(0.3f + 0.4f * float(i / layer.s.order()));
  const auto x = layer.x;
  const auto y = layer.run(type);
  const auto move = [&](const std::vector<T>& map, const MapStrides& strides, int64_t fields, int size, int g) {
    std::vector<T> moved(map.size());
    for (int64_t f = 0; f < fields; ++f)
      for (int e = 0; e < layer.s.order(); ++e)
        for (int pixel = 0; pixel < size * size; ++pixel) {
          const int to = moved_tap(layer.s.group->matrices[g], pixel, size);
          moved[at(strides, 0, f, layer.s.group->product[g][e], to / size, to % size)] =
              map[at(strides, 0, f, e, pixel / size, pixel % size)];
        }
    return moved;
  };
  for (int g = 1; g < layer.s.order(); ++g) {
    layer.x = move(x, layer.x_strides(), layer.in_planes(), int(c.height), g);
    const auto got = layer.run(type), want = move(y, layer.y_strides(), layer.out_planes(), int(layer.s.rows.out), g);
    for (size_t i = 0; i < want.size(); ++i)
      if (!(cpu::widen(got[i]) == cpu::widen(want[i]))) {
        if (++failures < 20) std::printf("%s type %d: not equivariant under element %d\n", group, int(type), g);
        break;
      }
  }
}

// Of the papers' layers, on 28 × 28 pixels, as of large ones.
int launches(int64_t fields, ScalarType type) {
  Case c;
  c.in_fields = c.out_fields = fields, c.batch = 64, c.height = c.width = 28;
  cuda::IrrepFpropParams p;
  p.shape = shape_of("C4", c), p.type = type;
  return cuda::irrep_fprop_workspace(p) ? 2 : 1;
}

std::vector<Case> cases() {
  std::vector<Case> all;
  const auto add = [&](auto change) {
    Case c;
    change(c);
    all.push_back(c);
  };
  // Fields: of whole vectors, of pairs, odd; fewer than a step and more; tiles of 8, 16 and 32.
  add([](Case& c) { c.in_fields = 8, c.out_fields = 8, c.batch = 2; });
  add([](Case& c) { c.in_fields = 20, c.out_fields = 10; });
  add([](Case& c) { c.in_fields = 36, c.out_fields = 40, c.height = c.width = 3, c.wide = c.padded = true; });
  add([](Case& c) { c.in_fields = 10, c.out_fields = 5, c.relu = true; });
  add([](Case& c) {
    c.in_fields = 8, c.out_fields = 24, c.size = 2;
  });  // small for wgmma, whoever transforms the weight
  add([](Case& c) { c.in_fields = 5, c.out_fields = 17, c.format = Case::Rows; });
  add([](Case& c) { c.in_fields = 3, c.out_fields = 2, c.format = Case::ElementsLast; });
  add([](Case& c) { c.in_fields = 4, c.out_fields = 6, c.groups = 3, c.batch = 3; });
  add([](Case& c) { c.in_fields = c.out_fields = 3, c.groups = 2; });  // the weights of a block begin anywhere
  // Geometry.
  add([](Case& c) { c.size = 1, c.padding = 0, c.height = c.width = 1; });
  add([](Case& c) { c.size = 2, c.stride = 2, c.in_fields = 8, c.height = 8, c.width = 9; });
  add([](Case& c) { c.stride = 3, c.padding = 2, c.dilation = 2, c.height = 9, c.width = 12, c.format = Case::Rows; });
  add([](Case& c) { c.size = 5, c.padding = 2, c.batch = 6; });  // more pixels than a block has
  add([](Case& c) { c.in_fields = 7, c.out_fields = 12, c.height = 2, c.width = 140; });  // a tile within a row
  // The adjoint, with the spread of a stride 1, 2 and 3.
  add([](Case& c) { c.adjoint = true, c.in_fields = 8, c.out_fields = 4, c.activated = true; });
  add([](Case& c) { c.adjoint = true, c.in_fields = 4, c.out_fields = 12, c.spread = 2; });
  add([](Case& c) {
    c.adjoint = true, c.in_fields = 5, c.spread = 3, c.groups = 2, c.padding = 0, c.format = Case::Rows;
  });
  add([](Case& c) { c.adjoint = true, c.spread = 2, c.dilation = 2, c.padding = 3, c.height = 3, c.activated = true; });
  add([](Case& c) { c.adjoint = true, c.size = 1, c.spread = 2, c.padding = 0; });  // phases that read nothing
  add([](Case& c) { c.adjoint = true, c.spread = 1, c.padding = -1, c.size = 1, c.height = 6; });
  // Relaxed.
  add([](Case& c) { c.banks = 2, c.in_fields = 8, c.out_fields = 8; });
  add([](Case& c) { c.banks = 2, c.in_fields = 6, c.out_fields = 11; });
  add([](Case& c) { c.banks = 3, c.in_fields = 17, c.out_fields = 9, c.format = Case::Rows, c.relu = true; });
  add([](Case& c) { c.banks = 2, c.relax_input = true, c.in_fields = 4, c.out_fields = 10; });
  add([](Case& c) { c.banks = 2, c.relax_input = true, c.activated = true, c.adjoint = true, c.spread = 2; });
  // Lifting.
  add([](Case& c) { c.lifting = true, c.in_fields = 3, c.out_fields = 8, c.format = Case::Rows, c.batch = 2; });
  add([](Case& c) { c.lifting = true, c.in_fields = 1, c.out_fields = 10, c.size = 4, c.stride = 2, c.width = 7; });
  add([](Case& c) { c.lifting = true, c.banks = 2, c.size = 5, c.padding = 2; });
  return all;
}

// For wgmma: a part of a step and of a tile, two blocks of in fields, two tiles of pixels and of out fields; geometry.
std::vector<Case> wide_cases() {
  std::vector<Case> all(6);
  all[0].in_fields = 40, all[0].out_fields = 24;
  all[1].in_fields = 32, all[1].out_fields = 40, all[1].relu = true;
  all[2].in_fields = 64, all[2].out_fields = 32, all[2].stride = 2, all[2].padding = 2, all[2].dilation = 2;
  all[3].in_fields = 72, all[3].out_fields = 32, all[3].groups = 2, all[3].adjoint = true, all[3].padding = 0;
  all[4].in_fields = 8, all[4].out_fields = 40, all[4].size = 5, all[4].height = 4;
  all[5].in_fields = 64, all[5].out_fields = 72, all[5].size = 1, all[5].padding = 0, all[5].batch = 5;
  for (Case& c : all) c.wide = true;
  return all;
}

// The same of copies of x: odd fields and even ones, masks, other formats.
std::vector<Case> padded_cases() {
  std::vector<Case> all(7);
  all[0].in_fields = 31, all[0].out_fields = 31, all[0].batch = 2;
  all[1].in_fields = 46, all[1].out_fields = 24, all[1].relu = true;
  all[2].in_fields = 40, all[2].out_fields = 23, all[2].stride = 2;
  all[3].in_fields = 32, all[3].out_fields = 40, all[3].activated = true, all[3].adjoint = true;
  all[4].in_fields = 40, all[4].out_fields = 32, all[4].format = Case::Rows, all[4].batch = 3;
  all[5].in_fields = 33, all[5].out_fields = 40, all[5].format = Case::ElementsLast, all[5].activated = true;
  all[6].in_fields = 47, all[6].out_fields = 46, all[6].adjoint = true, all[6].size = 2, all[6].padding = 0;
  for (Case& c : all) c.wide = c.padded = true;
  return all;
}

}  // namespace

int main() {
  for (const char* group : {"C1", "C2", "C4", "D1", "D2", "D4"})
    for (const Case& c : cases()) {
      check<cpu::BFloat16>(group, c, ScalarType::BFloat16);
      check<cpu::Float16>(group, c, ScalarType::Float16);
      check<float>(group, c, ScalarType::Float32);
    }
  for (const char* group : {"C4", "D4"})
    for (const auto& cases : {wide_cases(), padded_cases()})
      for (const Case& c : cases) {
        check<cpu::BFloat16>(group, c, ScalarType::BFloat16);
        check<cpu::Float16>(group, c, ScalarType::Float16);
      }
  const Case wide = wide_cases()[0];
  check<cpu::BFloat16>("D2", wide, ScalarType::BFloat16);
  check<float>("C4", wide, ScalarType::Float32);
  for (int capability : {8, 9}) {  // the same layers without wgmma
    emulation::machine.capability = capability;
    if (capability == 9 && !cuda::allow_wgmma(false)) ++failures, std::puts("wgmma was not allowed at first");
    for (const auto& cases : {wide_cases(), padded_cases()})
      for (Case c : cases) {
        c.wide = c.padded = false;
        check<cpu::BFloat16>(c.adjoint ? "D4" : "C4", c, ScalarType::BFloat16);
      }
  }
  if (cuda::allow_wgmma(true)) ++failures, std::puts("wgmma was allowed all the time");
  for (const char* group : {"C4", "D4"})
    for (bool adjoint : {false, true}) {
      Case square = wide;
      square.adjoint = adjoint, square.height = square.width = 5;
      check_equivariance<cpu::BFloat16>(group, square, ScalarType::BFloat16);
      check_equivariance<cpu::Float16>(group, square, ScalarType::Float16);
      square.in_fields = 39, square.padded = true;
      check_equivariance<cpu::BFloat16>(group, square, ScalarType::BFloat16);

      Case c;
      c.adjoint = adjoint, c.in_fields = 20, c.out_fields = 10, c.height = c.width = 5, c.spread = adjoint ? 2 : 1;
      check_equivariance<cpu::BFloat16>(group, c, ScalarType::BFloat16);
      check_equivariance<cpu::Float16>(group, c, ScalarType::Float16);
      check_equivariance<float>(group, c, ScalarType::Float32);
      for (bool relax_input : {false, true}) {
        c.banks = 2, c.relax_input = relax_input;
        check_equivariance<cpu::BFloat16>(group, c, ScalarType::BFloat16);
        check_equivariance<cpu::Float16>(group, c, ScalarType::Float16);
        check_equivariance<float>(group, c, ScalarType::Float32);
      }
    }
  if (!in_one_launch || !in_two) ++failures, std::puts("all in one launch, or none");
  for (ScalarType type : {ScalarType::BFloat16, ScalarType::Float32})
    if (launches(10, type) != 1 || launches(64, type) != 2) ++failures, std::puts("launches of a layer");
  std::printf("%d failures\n", failures);
  return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
