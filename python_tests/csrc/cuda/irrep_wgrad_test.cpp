// The gradient of the weights by CUDA, run on the CPU, against the sum written out from conv_shape.h's equation. And
// that of (g·x, g·dy) == that of (x, dy), bit for bit, where one product is all there is to sum.
#include "cuda/irrep.h"
#include "cuda/irrep_wgrad_plan.h"
#include "cuda/wgmma_choice.h"

#include <cmath>
#include <cstdio>

#include "csrc/testing.h"

using namespace gconv;
using namespace testing;

namespace {

enum class Format { Rows, ElementsLast, FieldsLast };
enum class Relax { None, Input, Output };

struct Case {
  int64_t batch, groups, in_fields, out_fields, height, width;
  int size = 3;
  int64_t stride = 1, padding = 1, dilation = 1;
  Format format = Format::FieldsLast;
  bool lifting = false;
  Relax relax = Relax::None;
  bool masked = false;
  int64_t gap = 0;  // numbers between pixels or rows that belong to nothing
};

MapStrides strides_of(const Case& c, int64_t fields, int64_t elements, int64_t height, int64_t width) {
  if (c.format == Format::Rows) {
    const int64_t row = width + c.gap;
    return {fields * elements * height * row, elements * height * row, height * row, row, 1};
  }
  const int64_t pixel = (c.format == Format::ElementsLast ? fields * elements : fields) + c.gap;
  if (c.format == Format::ElementsLast) return {height * width * pixel, elements, 1, width * pixel, pixel};
  return {elements * height * width * pixel, 1, height * width * pixel, width * pixel, pixel};
}

// Relative to the largest result. Rounding that to T costs half_ulp, of which twice is allowed. A number of X̂ and one
// of ŷ are rounded once for each of the log2 |P| additions that form them, and for the relaxed weight or to tf32: each
// operand of a product is off by at most that many half_ulps of its size. The signs of products and of their errors
// vary from pixel to pixel, so that both sums grow alike and the ratio stays. Sums in float32 are within 1e-5.
template <typename T>
double tolerance(int order, bool tf32) {
  if (std::is_same_v<T, double>) return 1e-13;
  const double sums = 1e-5, rounding = half_ulp<T>(), operand = (std::log2(order) + 1) * rounding;
  if (tf32) return 2 * 0x1p-11 + sums;  // the transforms are float32's
  return std::is_same_v<T, float> ? sums : 2 * rounding + 2 * operand + sums;
}

template <typename T>
void check(const char* group, const Case& c, ScalarType type, bool tf32 = false) {
  uint64_t state = c.size + c.in_fields + 1;
  cuda::IrrepWgradParams params;
  ConvShape& s = params.shape;
  s.group = find_group(group);
  s.lifting = c.lifting;
  s.batch = c.batch, s.groups = c.groups, s.in_fields = c.in_fields, s.out_fields = c.out_fields, s.size = c.size;
  for (auto [axis, in] : {std::pair{&s.rows, c.height}, std::pair{&s.columns, c.width}}) {
    *axis = {in, 0, c.stride, c.padding, c.dilation};
    axis->out = (in + 2 * c.padding - c.dilation * (c.size - 1) - 1) / c.stride + 1;
  }
  const int64_t order = s.order(), elements = s.in_elements(), taps = s.taps();
  const int64_t in_planes = c.groups * c.in_fields, out_planes = c.groups * c.out_fields;
  const MapStrides xs = strides_of(c, in_planes, elements, c.height, c.width);
  const MapStrides ys = strides_of(c, out_planes, order, s.rows.out, s.columns.out);
  const auto x = random_numbers<T>(c.batch * xs.batch, state), dy = random_numbers<T>(c.batch * ys.batch, state);
  auto activated = random_numbers<T>(dy.size(), state);
  if (!activated.empty()) activated[0] = cpu::narrow<T>(NAN);
  const int64_t banks = c.relax == Relax::None ? 1 : 2, bank = out_planes * c.in_fields * elements * taps;
  const auto w = random_numbers<T>(banks * order, state);
  std::vector<T> got(banks * bank, cpu::narrow<T>(NAN));

  params.type = type, params.tf32 = tf32, params.banks = banks, params.relax_input = c.relax == Relax::Input;
  params.x = x.data(), params.x_strides = xs, params.dy = dy.data(), params.dy_strides = ys;
  params.dy_activated = c.masked ? activated.data() : nullptr;
  params.relaxed_weight = c.relax == Relax::None ? nullptr : w.data();
  params.grad_weight = got.data();
  std::vector<double> workspace((cuda::irrep_wgrad_workspace(params) + 7) / 8, NAN);
  params.workspace = workspace.data();
  const int wgmmas = emulation::machine.wgmmas;
  const cudaError_t error = cuda::irrep_wgrad(params, nullptr);
  const bool takes_wgmma = emulation::machine.wgmmas > wgmmas;
  // Whether X̂ stays in registers: of C4 or D4, with wgmma where that is allowed.
  const int neighbours = order == 4 && (c.out_fields + 31) / 32 % 2 ? 4 : 2;
  const bool together = c.format == Format::FieldsLast && c.gap % 8 == 0 && c.in_fields % neighbours == 0;
  const bool wide = order == 8 ? c.out_fields > 8 : s.group->name == "C4" && c.in_fields > 16 && c.out_fields > 16;
  const bool direct = sizeof(T) == 2 && together && c.out_fields % 8 == 0 && wide;
  const bool staged = sizeof(T) == 2 && order == 4 && !c.lifting && c.in_fields <= 16 && c.out_fields <= 16 &&
                      c.stride == 1 && c.dilation == 1 && c.size <= 4 && c.batch > 0;
  const cuda::WgradKernel kernel = cuda::plan_irrep_wgrad(params).kernel;
  // Or in those of copies that are made of the maps.
  const bool padded = sizeof(T) == 2 && wide && c.groups == 1 && c.size > 1 && c.in_fields > 16 && c.out_fields > 16;
  const bool in_registers = direct || padded;
  if ((kernel == cuda::WgradKernel::Direct) != direct || (kernel == cuda::WgradKernel::Staged) != staged ||
      takes_wgmma != (in_registers && c.out_fields > 16 && c.batch > 0 && cuda::wgmma_allowed()))
    ++failures, std::printf("%s %d -> %d: another kernel\n", group, int(c.in_fields), int(c.out_fields));

  std::vector<double> want(banks * bank);
  for (int64_t b = 0; b < c.batch; ++b)
    for (int64_t o = 0; o < out_planes; ++o)
      for (int u = 0; u < order; ++u)
        for (int64_t p = 0; p < s.rows.out; ++p)
          for (int64_t q = 0; q < s.columns.out; ++q) {
            const int64_t from = b * ys.batch + o * ys.field + u * ys.element + p * ys.row + q * ys.column;
            if (c.masked && cpu::widen(activated[from]) <= 0) continue;
            const double gradient = cpu::widen(dy[from]);
            for (int e = 0; e < elements; ++e)
              for (int tap = 0; tap < taps; ++tap) {
                const int v = c.lifting ? 0 : s.group->product[u][e];
                const int moved = moved_tap(s.group->matrices[u], tap, c.size);
                const int64_t row = p * c.stride + moved / c.size * c.dilation - c.padding;
                const int64_t column = q * c.stride + moved % c.size * c.dilation - c.padding;
                if (row < 0 || column < 0 || row >= c.height || column >= c.width) continue;
                for (int64_t l = 0; l < banks; ++l) {
                  double scaled = gradient;
                  if (c.relax != Relax::None) scaled *= cpu::widen(w[l * order + (c.relax == Relax::Input ? v : u)]);
                  for (int64_t i = 0; i < c.in_fields; ++i) {
                    const int64_t field = o / c.out_fields * c.in_fields + i;
                    const int64_t pixel = b * xs.batch + v * xs.element + row * xs.row + column * xs.column;
                    const int64_t to = l * bank + ((o * c.in_fields + i) * elements + e) * taps + tap;
                    want[to] += scaled * cpu::widen(x[pixel + field * xs.field]);
                  }
                }
              }
          }
  double largest = 0, worst = 0;
  for (double number : want) largest = std::max(largest, std::abs(number));
  for (size_t i = 0; i < want.size(); ++i) {
    const double difference = std::abs(cpu::widen(got[i]) - want[i]);
    if (!(difference <= worst)) worst = difference;  // NaN stays
  }
  if (error == cudaSuccess && worst <= tolerance<T>(order, tf32) * largest) return;
  if (++failures < 20)
    std::printf(
        "%s%s %d x %d->%d of %dx%d k=%d s=%d p=%d d=%d format %d relax %d mask %d type %d tf32 %d: "
        "error %d, off by %.2g of %.2g\n",
        group, c.lifting ? " lifting" : "", int(c.groups), int(c.in_fields), int(c.out_fields), int(c.height),
        int(c.width), c.size, int(c.stride), int(c.padding), int(c.dilation), int(c.format), int(c.relax), c.masked,
        int(type), tf32, int(error), worst, largest);
}

// One pixel, one tap, irreps of dimension 1, and relaxed weights that are the same for all elements.
template <typename T>
void check_equivariance(const char* group, Relax relax, ScalarType type, bool tf32 = false) {
  uint64_t state = 5;
  cuda::IrrepWgradParams params;
  ConvShape& s = params.shape;
  s.group = find_group(group), s.batch = 1, s.in_fields = 8, s.out_fields = 8, s.size = 1;
  s.rows = s.columns = {1, 1};
  const int order = static_cast<int>(s.order());
  const auto x = random_numbers<T>(8 * order, state), dy = random_numbers<T>(8 * order, state);
  const std::vector<T> w(order, cpu::narrow<T>(0.3f));
  params.type = type, params.tf32 = tf32, params.relax_input = relax == Relax::Input, params.relaxed_weight = w.data();
  params.x_strides = params.dy_strides = {8 * order, 1, 8, 8, 8};
  std::vector<double> workspace((cuda::irrep_wgrad_workspace(params) + 7) / 8, NAN);
  params.workspace = workspace.data();
  const auto gradient = [&](int g) {
    std::vector<T> moved_x(x.size()), moved_dy(dy.size()), grad_weight(64 * order, cpu::narrow<T>(NAN));
    for (int e = 0; e < order; ++e)
      for (int field = 0; field < 8; ++field) {
        const int to = s.group->product[g][e] * 8 + field;
        moved_x[to] = x[e * 8 + field], moved_dy[to] = dy[e * 8 + field];
      }
    params.x = moved_x.data(), params.dy = moved_dy.data(), params.grad_weight = grad_weight.data();
    if (cuda::irrep_wgrad(params, nullptr)) ++failures, std::puts("launch failed");
    return grad_weight;
  };
  const auto want = gradient(0);
  for (int g = 1; g < order; ++g) {
    const auto got = gradient(g);
    for (size_t i = 0; i < want.size(); ++i)
      if (cpu::widen(got[i]) != cpu::widen(want[i])) {
        if (++failures < 20) std::printf("%s relax %d type %d: not equivariant\n", group, int(relax), int(type));
        break;
      }
  }
}

void check_types(const char* group, const Case& c) {
  check<double>(group, c, ScalarType::Float64);
  check<float>(group, c, ScalarType::Float32);
  check<float>(group, c, ScalarType::Float32, true);
  check<cpu::BFloat16>(group, c, ScalarType::BFloat16);
  check<cpu::Float16>(group, c, ScalarType::Float16);
}

// Some of the tiles and chunks are partly empty; up to seven stages of 32 pixels follow each other, or shares are added.
std::vector<Case> direct_cases() {
  return {
      {2, 1, 20, 40, 9, 11, 3, 1, 1, 1, Format::FieldsLast, false, Relax::Output, true},
      {1, 1, 36, 24, 13, 12, 3, 2, 2, 1, Format::FieldsLast, false, Relax::Input},
      {2, 1, 20, 32, 9, 8, 3, 1, 2, 2, Format::FieldsLast, true, Relax::None, true},
      {3, 2, 24, 32, 13, 9, 2, 1, 0, 1, Format::FieldsLast, false, Relax::None, false, 8},
      {1, 1, 48, 72, 7, 9, 1, 1, 0},
      {1, 1, 18, 64, 4, 7, 5, 1, 2},
      {0, 1, 32, 32, 4, 4},
      {2, 1, 10, 16, 9, 11, 3, 1, 1, 1, Format::FieldsLast, false, Relax::None, true},
  };
}

// Vectors of 8 and 2 fields and none; one to four parts of a tile; tiles that are not full, and that cross images.
std::vector<Case> staged_cases() {
  return {
      {3, 1, 10, 12, 13, 12},
      {2, 2, 16, 8, 9, 11, 3, 1, 1, 1, Format::FieldsLast, false, Relax::Output},
      {1, 1, 6, 10, 12, 11, 3, 1, 0, 1, Format::FieldsLast, false, Relax::Input, true},
      {3, 1, 5, 7, 9, 8, 3, 1, 2, 1, Format::Rows, false, Relax::None, true, 1},
      {20, 1, 8, 16, 3, 3, 2, 1, 1, 1, Format::ElementsLast},
      {1, 3, 2, 4, 10, 9, 4, 1, 1},
      {2, 1, 8, 8, 9, 8, 1, 1, 0, 1, Format::FieldsLast, false, Relax::None, false, 8},
  };
}

// Rows whose staged pixels are more than 32 bits can count, up to what positions_fit, and beyond it.
void check_huge() {
  for (int64_t width : {int64_t{613566755}, int64_t{1} << 40}) {
    cuda::IrrepWgradParams params;
    ConvShape& s = params.shape;
    s.group = find_group("C4"), s.batch = 1, s.in_fields = 4, s.out_fields = 4, s.size = 3;
    s.rows = {1, 1, 1, 1, 1}, s.columns = {width, width, 1, 1, 1};
    params.type = ScalarType::BFloat16;
    params.x_strides = params.dy_strides = {16 * width, 1, 4 * width, 4 * width, 4};
    if (cuda::plan_irrep_wgrad(params).kernel == cuda::WgradKernel::Staged) ++failures, std::puts("huge, but staged");
  }
}

}  // namespace

int main() {
  check_huge();
  const Format Rows = Format::Rows, ElementsLast = Format::ElementsLast, FieldsLast = Format::FieldsLast;
  const Case cases[] = {
      {2, 1, 5, 17, 7, 6, 3, 1, 1, 1, Rows},                                   // several shares
      {1, 1, 17, 33, 5, 4, 3, 2, 1, 1, FieldsLast, false, Relax::Output},      // wide
      {1, 2, 8, 16, 5, 6, 2, 1, 1, 1, FieldsLast, false, Relax::Input, true},  // loads of 16 bytes
      {1, 1, 2, 10, 6, 7, 3, 3, 2, 2, ElementsLast, false, Relax::None, true, 2},
      {3, 2, 3, 6, 8, 7, 3, 1, 1, 1, Rows, true, Relax::Output, true},
      {1, 1, 1, 2, 6, 8, 4, 2, 1, 1, FieldsLast, true},
  };
  for (const char* group : {"C1", "C2", "C4", "D1", "D2", "D4"})
    for (const Case& c : cases) check_types(group, c);
  const Case once[] = {
      {0, 1, 2, 3, 4, 4},  // nothing to sum
      {0, 1, 2, 3, 4, 4, 3, 1, 1, 1, FieldsLast, true},
      {1, 1, 1, 1, 1, 1, 1, 1, 0, 1, Rows, false, Relax::None, true},  // the mask's only number is a NaN
      {1, 3, 1, 1, 3, 9, 5, 1, 2, 1, Rows},                            // more orbits than warps
      {1, 1, 48, 40, 3, 3, 1, 1, 0, 1, FieldsLast, false, Relax::None, false, 8},
      {1, 1, 10, 34, 4, 5, 3, 1, 0, 1, FieldsLast, false, Relax::None, true, 6},  // loads of 4 bytes in 16-bit types
  };
  for (const char* group : {"C4", "D4"})
    for (const Case& c : once) check_types(group, c);
  for (const char* group : {"C4", "D2"})
    for (const Case& c : staged_cases()) {
      check<cpu::BFloat16>(group, c, ScalarType::BFloat16);
      check<cpu::Float16>(group, c, ScalarType::Float16);
    }
  for (bool wgmma : {true, false}) {
    cuda::allow_wgmma(wgmma);
    for (const char* group : {"C4", "D4"})
      for (const Case& c : direct_cases()) {
        check<cpu::BFloat16>(group, c, ScalarType::BFloat16);
        check<cpu::Float16>(group, c, ScalarType::Float16);
      }
  }
  if (cuda::allow_wgmma(true)) ++failures, std::puts("wgmma was allowed all the time");
  emulation::machine.capability = 8;
  check<cpu::BFloat16>("C4", direct_cases()[0], ScalarType::BFloat16);
  emulation::machine.capability = 9;
  for (const char* group : {"C4", "D4"})
    for (int other = 0; other < 8; ++other) {  // the same layer otherwise: one map or both are copied, or none
      Case c{2, 1, 20, 40, 9, 11};
      if (other == 0) c.format = Format::Rows;
      if (other == 1) c.gap = 1;
      if (other == 2) c.in_fields = 21;
      if (other == 3) c.out_fields = 44, c.masked = true;
      if (other == 4) c.in_fields = 23, c.out_fields = 23, c.stride = 2;
      if (other == 5) c.format = Format::ElementsLast, c.masked = true;
      if (other == 6) c.in_fields = 17, c.lifting = true, c.relax = Relax::Output;
      if (other == 7) c.in_fields = 21, c.groups = 2;
      check<cpu::BFloat16>(group, c, ScalarType::BFloat16);
      check<cpu::Float16>(group, c, ScalarType::Float16);
    }
  // Many shares, each of whole images and parts of images.
  check<cpu::BFloat16>("C4", {9, 1, 3, 4, 9, 11}, ScalarType::BFloat16);
  check<float>("D4", {9, 1, 3, 4, 9, 11, 1, 1, 0}, ScalarType::Float32);
  for (const char* group : {"C2", "D2"})
    for (Relax relax : {Relax::Input, Relax::Output}) {
      check_equivariance<double>(group, relax, ScalarType::Float64);
      check_equivariance<float>(group, relax, ScalarType::Float32);
      check_equivariance<float>(group, relax, ScalarType::Float32, true);
      check_equivariance<cpu::BFloat16>(group, relax, ScalarType::BFloat16);
      check_equivariance<cpu::Float16>(group, relax, ScalarType::Float16);
    }
  std::printf("%d failures\n", failures);
  return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
