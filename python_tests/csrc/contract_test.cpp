// The contraction kernels, each instruction set against the sums of cpu/contract.h written out.
#include "cpu/contract.h"

#include <cmath>
#include <cstdio>

#include "testing.h"

using namespace gconv;
using namespace testing;
using cpu::InstructionSet;

namespace {

struct Sizes {
  int64_t batch, in_fields, out_fields, hidden, in_elements, size, rows, columns, stride, out_elements;
};

// Numbers, then NaNs as far as vectors may be read: what lies beyond must not be seen in a result.
template <typename T>
std::vector<T> input(int64_t count, uint64_t& state) {
  auto numbers = random_numbers<T>(count, state);
  numbers.resize(count + cpu::kContractSlackBytes / sizeof(T), NAN);
  return numbers;
}

template <typename T>
void check(const Sizes& s, cpu::ScalarType type, InstructionSet level) {
  uint64_t state = s.in_fields + s.hidden;
  const int64_t pixel = s.in_elements * s.batch * s.in_fields, out_columns = (s.columns - s.size) / s.stride + 1;
  const int64_t sites = ((s.rows - s.size) / s.stride + 1) * out_columns * s.out_elements,
                terms = s.in_elements * s.size * s.size;
  std::vector<int64_t> offsets;
  for (int64_t m = 0; m < s.in_elements; ++m)
    for (int64_t t = 0; t < s.size * s.size; ++t)
      offsets.push_back((t / s.size * s.columns + t % s.size) * pixel + m * s.batch * s.in_fields);

  cpu::ContractParams p;
  p.type = type;
  p.batch = s.batch, p.in_fields = s.in_fields, p.out_fields = s.out_fields, p.hidden = s.hidden, p.terms = terms;
  p.out_elements = s.out_elements, p.columns = out_columns;
  p.row_step = s.stride * s.columns * pixel, p.column_step = s.stride * pixel;
  p.term_offsets = offsets.data();

  const int64_t z_site = s.batch * s.hidden * s.in_fields, filter_site = terms * s.in_fields * s.out_fields;
  const auto x = input<T>(s.rows * s.columns * pixel, state), dz = input<T>(sites * z_site, state);
  const auto filters = input<T>(sites * filter_site, state), dy = input<T>(sites * s.batch * s.out_fields, state);
  const auto phi = random_numbers<T>(sites * terms * s.hidden, state),
             before = random_numbers<T>(s.rows * s.columns * pixel, state);
  // One more number than is to be written.
  std::vector<T> z(sites * z_site + 1, NAN), dphi(phi.size() + 1, NAN), y(sites * s.batch * s.out_fields + 1, NAN);
  std::vector<T> dfilters(sites * filter_site + 1, NAN), dx = before, dx_of_filters = before;

  for (const cpu::Sites block : {cpu::Sites{0, sites / 2}, cpu::Sites{sites / 2, sites}}) {
    const int64_t z_at = block.begin * z_site, filters_at = block.begin * filter_site;
    cpu::contract(p, x.data(), phi.data(), z.data() + z_at, block, level);
    cpu::contract_hgrad(p, x.data(), dz.data() + z_at, dphi.data(), block, level);
    cpu::contract_dgrad(p, phi.data(), dz.data() + z_at, dx.data(), block, level);
    cpu::apply_filters(p, x.data(), filters.data() + filters_at, y.data(), block, level);
    cpu::apply_kgrad(p, x.data(), dy.data(), dfilters.data() + filters_at, block, level);
    cpu::apply_dgrad(p, filters.data() + filters_at, dy.data(), dx_of_filters.data(), block, level);
  }

  std::vector<double> want_z(sites * z_site), want_dphi(phi.size()), want_dx(before.begin(), before.end()),
      want_y(y.size() - 1);
  std::vector<double> want_dfilters(sites * filter_site), want_dx_of_filters = want_dx;
  for (int64_t q = 0; q < sites; ++q)
    for (int64_t k = 0; k < terms; ++k)
      for (int64_t b = 0; b < s.batch; ++b)
        for (int64_t c = 0; c < s.in_fields; ++c) {
          const int64_t at_x = p.at(q) + offsets[k] + b * s.in_fields + c;
          for (int64_t h = 0; h < s.hidden; ++h) {
            const int64_t at_z = ((q * s.batch + b) * s.hidden + h) * s.in_fields + c,
                          at_phi = (q * terms + k) * s.hidden + h;
            want_z[at_z] += double(phi[at_phi]) * x[at_x];
            want_dphi[at_phi] += double(x[at_x]) * dz[at_z];
            want_dx[at_x] += double(phi[at_phi]) * dz[at_z];
          }
          for (int64_t o = 0; o < s.out_fields; ++o) {
            const int64_t at_y = (q * s.batch + b) * s.out_fields + o,
                          filter = (q * terms + k) * s.in_fields * s.out_fields;
            want_y[at_y] += double(filters[filter + c * s.out_fields + o]) * x[at_x];
            want_dx_of_filters[at_x] += double(filters[filter + o * s.in_fields + c]) * dy[at_y];
            want_dfilters[filter + o * s.in_fields + c] += double(x[at_x]) * dy[at_y];
          }
        }

  // Numbers of size 1, and at most a few hundred terms in each sum.
  auto compare = [&](const char* what, const std::vector<T>& got, const std::vector<double>& want) {
    for (size_t i = 0; i < want.size(); ++i) {
      if (std::abs(got[i] - want[i]) <= 200 * half_ulp<T>() * (1 + std::abs(want[i]))) continue;  // NaN fails too
      if (++failures < 20)
        std::printf("C=%d D=%d k=%d %s, %s: got %.9g, expected %.9g\n", static_cast<int>(s.in_fields),
                    static_cast<int>(s.hidden), static_cast<int>(s.size), cpu::name(level), what,
                    static_cast<double>(got[i]), want[i]);
    }
    if (got.size() > want.size() && !std::isnan(got.back()))
      ++failures, std::printf("%s: written beyond its end\n", what);
  };
  compare("z", z, want_z);
  compare("dphi", dphi, want_dphi);
  compare("dx of z", dx, want_dx);
  compare("y", y, want_y);
  compare("dfilters", dfilters, want_dfilters);
  compare("dx of filters", dx_of_filters, want_dx_of_filters);
}

// Rows of a map as pixels and back, padding around them.
template <typename T>
void check_map(const cpu::ContractMap& s, cpu::MapRows rows, InstructionSet level) {
  uint64_t state = s.fields;
  const int64_t count = s.batch * s.fields * s.elements * s.rows * s.columns;
  const int64_t columns = s.columns + 2 * rows.padding, pixel = s.elements * s.batch * s.fields;
  const auto map = random_numbers<T>(count, state);
  std::vector<T> pixels(rows.count * columns * pixel + 1, NAN), stored(count + 1, NAN),
      added = map, want_stored = stored, want_added = map;
  added.push_back(NAN);
  cpu::pixels_of_map(s, map.data(), pixels.data(), rows, level);
  cpu::pixels_to_map(s, pixels.data(), stored.data(), rows, false, level);
  cpu::pixels_to_map(s, pixels.data(), added.data(), rows, true, level);
  const auto compare = [&](const char* what, T got, T want) {
    if (got != want && !(std::isnan(got) && std::isnan(want)) && ++failures < 20)
      std::printf("C=%d columns=%d %s, %s: got %.9g, expected %.9g\n", static_cast<int>(s.fields),
                  static_cast<int>(s.columns), cpu::name(level), what, static_cast<double>(got),
                  static_cast<double>(want));
  };
  for (int64_t i = 0; i < rows.count; ++i)
    for (int64_t j = 0; j < columns; ++j)
      for (int64_t m = 0; m < s.elements; ++m)
        for (int64_t b = 0; b < s.batch; ++b)
          for (int64_t c = 0; c < s.fields; ++c) {
            const int64_t row = rows.first + i - rows.padding, column = j - rows.padding;
            const bool inside = row >= 0 && row < s.rows && column >= 0 && column < s.columns;
            const int64_t at = (((b * s.fields + c) * s.elements + m) * s.rows + row) * s.columns + column;
            compare("pixels", pixels[((i * columns + j) * s.elements + m) * s.batch * s.fields + b * s.fields + c],
                    inside ? map[at] : T(0));
            if (inside) want_stored[at] = map[at], want_added[at] = 2 * map[at];
          }
  for (int64_t i = 0; i < count; ++i) {
    compare("stored", stored[i], want_stored[i]);
    compare("added", added[i], want_added[i]);
  }
  compare("beyond the pixels", pixels.back(), NAN);
  compare("beyond the stored map", stored.back(), NAN);
  compare("beyond the map added to", added.back(), NAN);
}

}  // namespace

int main() {
  return for_each_instruction_set([&](InstructionSet level) {
    for (const int64_t fields : {1, 5, 16, 39})
      for (const cpu::MapRows rows : {cpu::MapRows{0, 4, 1}, cpu::MapRows{3, 5, 2}, cpu::MapRows{1, 2, 0}}) {
        check_map<double>({cpu::ScalarType::Float64, 2, fields, 3, 4, 29}, rows, level);
        check_map<float>({cpu::ScalarType::Float32, 2, fields, 3, 4, 29}, rows, level);
      }
    for (const Sizes& sizes : {Sizes{1, 1, 1, 1, 1, 1, 1, 2, 1, 1}, Sizes{2, 3, 5, 32, 1, 3, 4, 5, 1, 1},
                               Sizes{3, 17, 16, 9, 2, 2, 5, 4, 2, 2}, Sizes{11, 16, 17, 33, 1, 3, 3, 5, 1, 1},
                               Sizes{1, 37, 33, 8, 3, 3, 3, 4, 1, 2}, Sizes{2, 32, 10, 5, 1, 5, 5, 6, 1, 1}}) {
      check<double>(sizes, cpu::ScalarType::Float64, level);
      check<float>(sizes, cpu::ScalarType::Float32, level);
    }
  });
}
