// The batch normalisation kernels, each instruction set against the sums of cpu/batch_norm.h written out.
#include "cpu/batch_norm.h"

#include <array>
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
  for (size_t i = 0; i < want.size(); ++i)
    worst = std::fmax(worst, std::fabs(got[i] - want[i]) / (1 + std::fabs(want[i])));
  if (!(worst <= tolerance)) std::printf("%s, %s: off by %Lg\n", where, what, worst), ++failures;
}

template <typename T>
void check(int64_t batch, int64_t fields, int64_t numbers, double offset, bool relu, cpu::ScalarType type,
           InstructionSet level) {
  uint64_t state = fields + numbers;
  const int64_t total = batch * fields * numbers;
  auto x = random_numbers<T>(total, state);
  const auto dy = random_numbers<T>(total, state), weight = random_numbers<T>(fields, state),
             bias = random_numbers<T>(fields, state);
  for (T& number : x) number += static_cast<T>(offset);
  const cpu::BatchNormParams params{type, batch, fields, numbers, 1e-3};
  std::vector<T> y(total + 1, NAN), mean(fields + 1, NAN), var = mean, dx = y, dweight = mean, dbias = mean, again = y;
  for (const cpu::Fields part : {cpu::Fields{0, fields / 2}, cpu::Fields{fields / 2, fields}}) {
    cpu::batch_norm_fprop(params, x.data(), weight.data(), bias.data(), relu, y.data(), mean.data(), var.data(), part,
                          level);
    cpu::batch_norm_inference(params, x.data(), weight.data(), bias.data(), mean.data(), var.data(), relu, again.data(),
                              part, level);
    cpu::batch_norm_dgrad(params, dy.data(), x.data(), mean.data(), var.data(), weight.data(),
                          relu ? y.data() : nullptr, dx.data(), dweight.data(), dbias.data(), part, level);
  }

  using Wide = long double;
  std::vector<Wide> want_y(total), want_dx(total), means(fields), vars(fields), dweights(fields), dbiases(fields);
  const Wide n = Wide(batch) * numbers;
  const auto passed = [&](int64_t at) { return relu && y[at] <= 0 ? Wide{0} : Wide{dy[at]}; };
  const auto for_each = [&](int64_t field, auto visit) {
    for (int64_t image = 0; image < batch; ++image)
      for (int64_t i = 0; i < numbers; ++i) visit((image * fields + field) * numbers + i);
  };
  for (int64_t field = 0; field < fields; ++field) {
    Wide &m = means[field], &v = vars[field];
    for_each(field, [&](int64_t at) { m += x[at] / n; });
    for_each(field, [&](int64_t at) { v += (x[at] - m) * (x[at] - m) / n; });
    const Wide invstd = 1 / std::sqrt(v + params.eps);
    for_each(field, [&](int64_t at) {
      want_y[at] = (x[at] - m) * invstd * weight[field] + bias[field];
      if (relu) want_y[at] = std::fmax(want_y[at], 0);
      dbiases[field] += passed(at);
      dweights[field] += passed(at) * (x[at] - m) * invstd;
    });
    for_each(field, [&](int64_t at) {
      want_dx[at] =
          weight[field] * invstd * (passed(at) - dbiases[field] / n - (x[at] - m) * invstd * dweights[field] / n);
    });
  }
  char where[100];
  std::snprintf(where, sizeof where, "%s, %d bytes, [%d, %d, %d], offset %g, relu %d", cpu::name(level), int(sizeof(T)),
                int(batch), int(fields), int(numbers), offset, int(relu));
  // An offset costs the digits that it has more than the numbers around it.
  const double tolerance = half_ulp<T>() * (20 + 20 * std::fabs(offset)),
               sums = tolerance * (1 + std::sqrt(static_cast<double>(n)));
  agree(y, want_y, tolerance, "y", where), agree(again, want_y, tolerance, "y by inference", where);
  agree(dx, want_dx, sums, "dx", where);
  agree(mean, means, tolerance, "mean", where), agree(var, vars, tolerance, "var", where);
  agree(dweight, dweights, sums, "dweight", where), agree(dbias, dbiases, sums, "dbias", where);
}

}  // namespace

int main() {
  return for_each_instruction_set([](InstructionSet level) {
    for (const double offset : {0.0, 300.0})
      for (const auto& [batch, fields, numbers] :
           {std::array<int64_t, 3>{1, 1, 2}, {2, 3, 7}, {3, 4, 64}, {2, 5, 129}, {2, 2, 4096}, {1, 3, 9001}})
        for (const bool relu : {false, true}) {
          check<float>(batch, fields, numbers, offset, relu, cpu::ScalarType::Float32, level);
          check<double>(batch, fields, numbers, offset, relu, cpu::ScalarType::Float64, level);
        }
  });
}
