// The planar point groups as compile-time tables: elements, products, inverses, and the action on taps.
// gconv_ext/groups.py states the same in Python; python_tests/test_groups.py holds the two together.
// No torch header here: kernels for any device may include this file.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace gconv {

constexpr int kMaxOrder = 8;

// Acts on (row, column) offsets from the centre.
struct Matrix {
  int rr, rc, cr, cc;
};

constexpr Matrix operator*(const Matrix& a, const Matrix& b) {
  return {a.rr * b.rr + a.rc * b.cr, a.rr * b.rc + a.rc * b.cc, a.cr * b.rr + a.cc * b.cr, a.cr * b.rc + a.cc * b.cc};
}

constexpr bool operator==(const Matrix& a, const Matrix& b) {
  return a.rr == b.rr && a.rc == b.rc && a.cr == b.cr && a.cc == b.cc;
}

struct PointGroup {
  std::string_view name;
  int order = 0;
  std::array<Matrix, kMaxOrder> matrices{};
  std::array<std::array<int, kMaxOrder>, kMaxOrder> product{};  // index of g·h
  std::array<int, kMaxOrder> inverse{};
};

// A subgroup of D4 given by its positions in D4's list r^0 … r^3, r^0 m … r^3 m.
template <std::size_t N>
constexpr PointGroup make_group(std::string_view name, const std::array<int, N>& members) {
  constexpr Matrix turn{0, -1, 1, 0};    // counter-clockwise as displayed: (row, column) -> (-column, row)
  constexpr Matrix mirror{1, 0, 0, -1};  // negates the column offset
  std::array<Matrix, kMaxOrder> all{};
  all[0] = {1, 0, 0, 1};
  for (int k = 1; k < 4; ++k) all[k] = turn * all[k - 1];
  for (int k = 0; k < 4; ++k) all[4 + k] = all[k] * mirror;

  PointGroup group;
  group.name = name;
  group.order = static_cast<int>(N);
  for (std::size_t i = 0; i < N; ++i) group.matrices[i] = all[members[i]];
  for (int g = 0; g < group.order; ++g)
    for (int h = 0; h < group.order; ++h)
      for (int i = 0; i < group.order; ++i)
        if (group.matrices[g] * group.matrices[h] == group.matrices[i]) {
          group.product[g][h] = i;
          if (i == 0) group.inverse[g] = h;
        }
  return group;
}

inline constexpr std::array<PointGroup, 6> kPointGroups = {
    make_group("C1", std::array{0}),          make_group("C2", std::array{0, 2}),
    make_group("C4", std::array{0, 1, 2, 3}), make_group("D1", std::array{0, 4}),
    make_group("D2", std::array{0, 2, 4, 6}), make_group("D4", std::array{0, 1, 2, 3, 4, 5, 6, 7}),
};

// nullptr when there is no such group.
constexpr const PointGroup* find_group(std::string_view name) {
  for (const PointGroup& group : kPointGroups)
    if (group.name == name) return &group;
  return nullptr;
}

// The tap g·s of a size × size kernel. Offsets from the centre are doubled, so that even sizes stay whole numbers.
constexpr int moved_tap(const Matrix& g, int tap, int size) {
  const int row = 2 * (tap / size) - (size - 1), column = 2 * (tap % size) - (size - 1);
  const int moved_row = g.rr * row + g.rc * column, moved_column = g.cr * row + g.cc * column;
  return (moved_row + size - 1) / 2 * size + (moved_column + size - 1) / 2;
}

}  // namespace gconv
