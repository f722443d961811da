// The CUDA expansion, run on the CPU, against csrc/cpu/expand_filter: the same sums in the same order, so the same
// bits; but for the gradient of the relaxed weights, whose shares differ.
#include "cuda/expand_filter.h"

#include <cmath>
#include <cstdio>
#include <cstring>

#include "cpu/expand_filter.h"
#include "csrc/testing.h"

using namespace gconv;
using namespace testing;

namespace {

template <typename T>
void compare_bits(const char* what, const std::vector<T>& got, const std::vector<T>& want) {
  if (!std::memcmp(got.data(), want.data(), want.size() * sizeof(T))) return;
  if (++failures < 20) std::printf("%s differs\n", what);
}

template <typename T>
void check(const char* group, bool lifting, int size, int64_t fields, bool relaxed, RelaxOn relax_on, ScalarType type) {
  uint64_t state = size + fields;
  FilterShape shape;
  shape.group = find_group(group);
  shape.lifting = lifting;
  shape.size = size;
  shape.banks = relaxed ? 3 : 1;
  shape.out_fields = fields + 1;
  shape.in_fields = fields;
  const int64_t filter_numbers = shape.pairs() * shape.elements() * shape.block(),
                relaxed_numbers = shape.banks * shape.elements();
  const auto moved = moved_positions(shape);
  const auto weight = random_numbers<T>(shape.banks * shape.pairs() * shape.block(), state);
  const auto relaxed_weight = random_numbers<T>(relaxed_numbers, state);
  const auto grad_filter = random_numbers<T>(filter_numbers, state);
  // Poisoned, so that anything not written shows.
  const T poison = cpu::narrow<T>(NAN);
  std::vector<T> filter(filter_numbers, poison), grad_weight(weight.size(), poison),
      grad_relaxed_weight(relaxed_numbers, poison);
  std::vector<T> filter_alone(filter_numbers), grad_weight_alone(weight.size());
  std::vector<double> workspace(cuda::expand_filter_backward_workspace(shape), NAN),
      shares(shape.out_fields * relaxed_numbers);

  cuda::ExpandFilterParams params;
  params.shape = shape, params.relax_on = relax_on, params.type = type, params.weight = weight.data();
  params.relaxed_weight = relaxed ? relaxed_weight.data() : nullptr, params.filter = filter.data();
  cuda::ExpandFilterBackwardParams backward;
  backward.shape = shape, backward.relax_on = relax_on, backward.type = type, backward.weight = weight.data();
  backward.relaxed_weight = params.relaxed_weight, backward.grad_filter = grad_filter.data();
  backward.grad_weight = grad_weight.data(),
  backward.grad_relaxed_weight = relaxed ? grad_relaxed_weight.data() : nullptr;
  backward.workspace = workspace.data();
  if (cuda::expand_filter(params, nullptr) || cuda::expand_filter_backward(backward, nullptr))
    ++failures, std::puts("launch failed");

  // Without instructions that multiply and add in one rounding, which the emulation does not have either.
  const auto level = cpu::InstructionSet::Baseline;
  cpu::ExpandFilterParams cpu_params;
  cpu_params.shape = shape, cpu_params.relax_on = relax_on, cpu_params.type = type, cpu_params.moved = moved.data();
  cpu_params.weight = weight.data(), cpu_params.relaxed_weight = params.relaxed_weight,
  cpu_params.filter = filter_alone.data();
  cpu::expand_filter(cpu_params, 0, shape.pairs(), level);
  cpu::ExpandFilterBackwardParams cpu_backward;
  cpu_backward.shape = shape, cpu_backward.relax_on = relax_on, cpu_backward.type = type,
  cpu_backward.moved = moved.data();
  cpu_backward.weight = weight.data(), cpu_backward.relaxed_weight = params.relaxed_weight;
  cpu_backward.grad_filter = grad_filter.data(), cpu_backward.grad_weight = grad_weight_alone.data();
  cpu_backward.grad_relaxed_weight = relaxed ? shares.data() : nullptr;
  cpu::expand_filter_backward(cpu_backward, 0, shape.out_fields, level);

  char what[100];
  const auto name = [&](const char* tensor) {
    std::snprintf(what, sizeof what, "%s %s k=%d, %d fields, relaxed %d %d, type %d: %s", group,
                  lifting ? "lifting" : "group", size, int(fields), relaxed, int(relax_on), int(type), tensor);
    return what;
  };
  compare_bits(name("filter"), filter, filter_alone);
  compare_bits(name("grad_weight"), grad_weight, grad_weight_alone);
  if (!relaxed) return;
  const double terms = static_cast<double>(shape.pairs() * shape.block());  // each below 1
  for (int64_t i = 0; i < relaxed_numbers; ++i) {
    double want = 0;
    for (int64_t o = 0; o < shape.out_fields; ++o) want += shares[o * relaxed_numbers + i];
    const double got = cpu::widen(grad_relaxed_weight[i]);
    if (std::abs(got - want) <= half_ulp<cpu::accumulate_t<T>>() * terms + half_ulp<T>() * (std::abs(want) + 0x1p-14))
      continue;
    if (++failures < 20)
      std::printf("%s[%d]: got %.9g, expected %.9g\n", name("grad_relaxed_weight"), int(i), got, want);
  }
}

void check_types(const char* group, bool lifting, int size, int64_t fields) {
  for (int kind = 0; kind < 3; ++kind) {  // strict, relaxed on the output, relaxed on the input
    if (lifting && kind == 2) continue;
    const RelaxOn relax_on = kind == 2 ? RelaxOn::Input : RelaxOn::Output;
    check<double>(group, lifting, size, fields, kind, relax_on, ScalarType::Float64);
    check<float>(group, lifting, size, fields, kind, relax_on, ScalarType::Float32);
    check<cpu::BFloat16>(group, lifting, size, fields, kind, relax_on, ScalarType::BFloat16);
    check<cpu::Float16>(group, lifting, size, fields, kind, relax_on, ScalarType::Float16);
  }
}

}  // namespace

int main() {
  for (const char* group : {"C1", "C2", "C4", "D1", "D2", "D4"})
    for (int size : {1, 2, 3, 5})
      for (bool lifting : {false, true}) check_types(group, lifting, size, 2);
  check_types("D4", false, 3, 16);  // more numbers than all shares have threads
  std::printf("%d failures\n", failures);
  return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
