// The expansion kernels, each instruction set against the sum written out from filter_shape.h's equation.
#include "cpu/expand_filter.h"

#include <cmath>
#include <cstdio>

#include "testing.h"

using namespace gconv;
using namespace testing;
using cpu::InstructionSet;

namespace {

// A sum of products with what bounds its rounding error: the sum of the magnitudes.
struct Sum {
  double value = 0, magnitude = 0;
  void add(double term) {
    value += term;
    magnitude += std::abs(term);
  }
};

template <typename T>
void check(const char* group, bool lifting, int size, int64_t banks, bool relaxed, RelaxOn relax_on,
           cpu::ScalarType type, InstructionSet level) {
  uint64_t state = size + banks;
  FilterShape shape;
  shape.group = find_group(group);
  shape.lifting = lifting;
  shape.size = size;
  shape.banks = banks;
  shape.out_fields = 3;
  shape.in_fields = 2;
  const int64_t elements = shape.elements(), block = shape.block(), taps = shape.taps(), pairs = shape.pairs();
  const auto moved = moved_positions(shape);
  const auto weight = random_numbers<T>(banks * pairs * block, state);
  const auto relaxed_weight = random_numbers<T>(banks * elements, state);
  const auto grad_filter = random_numbers<T>(pairs * elements * block, state);
  // Poisoned, so that anything not written shows.
  std::vector<T> filter(pairs * elements * block, cpu::narrow<T>(NAN)), grad_weight(weight.size(), cpu::narrow<T>(NAN));
  std::vector<double> shares(shape.out_fields * banks * elements, NAN);

  cpu::ExpandFilterParams params;
  params.shape = shape;
  params.relax_on = relax_on;
  params.type = type;
  params.moved = moved.data();
  params.weight = weight.data();
  params.relaxed_weight = relaxed ? relaxed_weight.data() : nullptr;
  params.filter = filter.data();
  cpu::expand_filter(params, 0, 4, level);  // in two ranges, as two threads would
  cpu::expand_filter(params, 4, pairs, level);

  cpu::ExpandFilterBackwardParams backward;
  backward.shape = shape;
  backward.relax_on = relax_on;
  backward.type = type;
  backward.moved = moved.data();
  backward.weight = weight.data();
  backward.relaxed_weight = params.relaxed_weight;
  backward.grad_filter = grad_filter.data();
  backward.grad_weight = grad_weight.data();
  backward.grad_relaxed_weight = relaxed ? shares.data() : nullptr;
  cpu::expand_filter_backward(backward, 0, 1, level);
  cpu::expand_filter_backward(backward, 1, shape.out_fields, level);

  std::vector<Sum> expected(filter.size()), expected_grad(weight.size()), expected_share(banks * elements);
  std::vector<double> share(banks * elements);
  for (int64_t pair = 0; pair < pairs; ++pair)
    for (int u = 0; u < elements; ++u)
      for (int w = 0; w < shape.relative_elements(); ++w)
        for (int s = 0; s < taps; ++s)
          for (int64_t l = 0; l < banks; ++l) {
            const int v = lifting ? 0 : shape.group->product[u][w];
            const int factor_element = relax_on == RelaxOn::Output ? u : v;
            const double factor = relaxed ? cpu::widen(relaxed_weight[l * elements + factor_element]) : 1;
            const int64_t from = (l * pairs + pair) * block + w * taps + s;
            const int64_t to = ((pair / 2 * elements + u) * 2 + pair % 2) * block + v * taps +
                               moved_tap(shape.group->matrices[u], s, size);
            const double number = cpu::widen(weight[from]), gradient = cpu::widen(grad_filter[to]);
            expected[to].add(factor * number);
            expected_grad[from].add(factor * gradient);
            expected_share[l * elements + factor_element].add(number * gradient);
          }
  for (size_t i = 0; i < shares.size(); ++i) share[i % share.size()] += shares[i];

  // Sums of n terms in the accumulation type, error at most n half-ulps of the magnitudes (taken as 32, the roundings
  // being independent), then one rounding to T; float16 may also round to a subnormal number.
  auto compare = [&](const char* what, double got, const Sum& want) {
    const double summed = 32 * half_ulp<cpu::accumulate_t<T>>() * want.magnitude;
    if (std::abs(got - want.value) <= summed + half_ulp<T>() * (std::abs(want.value) + 0x1p-14))
      return;  // NaN fails too
    if (++failures < 20)
      std::printf("%s %s k=%d L=%d %s, %s: got %.9g, expected %.9g\n", group, lifting ? "lifting" : "group", size,
                  static_cast<int>(banks), cpu::name(level), what, got, want.value);
  };
  for (size_t i = 0; i < filter.size(); ++i) compare("filter", cpu::widen(filter[i]), expected[i]);
  for (size_t i = 0; i < weight.size(); ++i) compare("grad_weight", cpu::widen(grad_weight[i]), expected_grad[i]);
  if (relaxed)
    for (size_t i = 0; i < share.size(); ++i) compare("grad_relaxed_weight", share[i], expected_share[i]);
}

void check_conversions() {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const cpu::Float16 half{static_cast<uint16_t>(bits)};
    const cpu::BFloat16 brain{static_cast<uint16_t>(bits)};
    const float from_half = cpu::widen(half), from_brain = cpu::widen(brain);
    const bool half_back = std::isnan(from_half) ? std::isnan(cpu::widen(cpu::narrow<cpu::Float16>(from_half)))
                                                 : cpu::narrow<cpu::Float16>(from_half).bits == bits;
    const bool brain_back = std::isnan(from_brain) ? std::isnan(cpu::widen(cpu::narrow<cpu::BFloat16>(from_brain)))
                                                   : cpu::narrow<cpu::BFloat16>(from_brain).bits == bits;
    if (!half_back || !brain_back) ++failures, std::printf("conversion of bits %04x does not return\n", bits);
  }
  auto expect = [](float value, unsigned half, unsigned brain) {
    if (cpu::narrow<cpu::Float16>(value).bits != half || cpu::narrow<cpu::BFloat16>(value).bits != brain)
      ++failures, std::printf("%g narrows to %04x and %04x\n", value, cpu::narrow<cpu::Float16>(value).bits,
                              cpu::narrow<cpu::BFloat16>(value).bits);
  };
  expect(1.0f + 1.0f / 2048, 0x3c00, 0x3f80);  // a tie goes to even, downwards
  expect(1.0f + 3.0f / 2048, 0x3c02, 0x3f80);  // and upwards
  expect(1.0f + 3.0f / 256, 0x3c0c, 0x3f82);   // a tie of bfloat16, upwards
  expect(65519.0f, 0x7bff, 0x4780);            // the last number below infinity in float16
  expect(65520.0f, 0x7c00, 0x4780);
  expect(std::ldexp(1.5f, -25), 0x0001, 0x3340);  // subnormal in float16
  expect(std::ldexp(1.0f, -25), 0x0000, 0x3300);  // half of the smallest: a tie, to even
  expect(-INFINITY, 0xfc00, 0xff80);
}

}  // namespace

int main() {
  check_conversions();
  return for_each_instruction_set([&](InstructionSet level) {
    for (const char* group : {"C1", "C2", "C4", "D1", "D2", "D4"})
      for (int size : {1, 2, 3, 5})
        for (bool lifting : {false, true})
          for (int kind = 0; kind < 3; ++kind) {  // strict, relaxed on the output, relaxed on the input
            if (lifting && kind == 2) continue;
            const RelaxOn relax_on = kind == 2 ? RelaxOn::Input : RelaxOn::Output;
            const int64_t banks = kind ? 3 : 1;
            check<double>(group, lifting, size, banks, kind, relax_on, cpu::ScalarType::Float64, level);
            check<float>(group, lifting, size, banks, kind, relax_on, cpu::ScalarType::Float32, level);
            check<cpu::BFloat16>(group, lifting, size, banks, kind, relax_on, cpu::ScalarType::BFloat16, level);
            check<cpu::Float16>(group, lifting, size, banks, kind, relax_on, cpu::ScalarType::Float16, level);
          }
  });
}
