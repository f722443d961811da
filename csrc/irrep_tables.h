// Fourier transforms over the point groups as compile-time tables: a new group is a new table, not a new kernel.
//
// The transform is a list of butterflies on the |P| numbers f[g], in the element order of group_tables.h. Its order
// matters: every coefficient is summed in a tree that the group maps onto itself up to order and sign, so that
// transforming g·f permutes and negates the coefficients and rounds nothing differently. The inverse is the same list
// transposed, backwards, and scaled. No torch header here: kernels for any device may include this file.
#pragma once

#include <array>
#include <string_view>

namespace gconv {

// (a, b) -> (a + b, a - b), or (a + b, b - a) when turned.
struct Butterfly {
  int a, b;
  bool turned = false;
};

// One real irreducible representation ρ. plane[i][j] is where the transform leaves Σ_g f[g] ρ(g)[i][j].
// Complex type (C4's rotations): [[re, -im], [im, re]], of which only the first column is computed.
struct Irrep {
  int dim;
  bool complex_type;
  int plane[2][2];
  constexpr int columns() const { return complex_type ? 1 : dim; }
};

template <int Order, int Butterflies, int Irreps>
struct FourierTable {
  static constexpr int order = Order, butterfly_count = Butterflies, irrep_count = Irreps;
  std::array<Butterfly, Butterflies> butterflies;
  std::array<Irrep, Irreps> irreps;
};

constexpr Irrep scalar_irrep(int plane) { return {1, false, {{plane, 0}, {0, 0}}}; }

struct FourierC1 {
  static constexpr FourierTable<1, 0, 1> table{{}, {scalar_irrep(0)}};
};

struct FourierC2 {  // D1 as well
  static constexpr FourierTable<2, 1, 2> table{{{{0, 1}}}, {scalar_irrep(0), scalar_irrep(1)}};
};

struct FourierC4 {
  static constexpr FourierTable<4, 3, 3> table{{{{0, 2}, {1, 3}, {0, 1}}},
                                               {{scalar_irrep(0), scalar_irrep(1), {2, true, {{2, 3}, {3, 2}}}}}};
};

struct FourierD2 {
  static constexpr FourierTable<4, 4, 4> table{{{{0, 1}, {2, 3}, {0, 2}, {1, 3}}},
                                               {scalar_irrep(0), scalar_irrep(1), scalar_irrep(2), scalar_irrep(3)}};
};

struct FourierD4 {
  static constexpr FourierTable<8, 10, 5> table{
      {{{0, 2}, {1, 3}, {0, 1}, {4, 6}, {5, 7}, {4, 5}, {0, 4}, {1, 5}, {2, 6}, {3, 7, true}}},
      {{scalar_irrep(0), scalar_irrep(1), scalar_irrep(4), scalar_irrep(5), {2, false, {{2, 7}, {3, 6}}}}}};
};

// Plane y of ŷ(ρ) = X̂(ρ) Ψ̂(ρ)ᵀ gains plane x of X̂ times plane w of Ψ̂, or minus that.
struct Product {
  int y, x, w;
  bool negated;
};

template <typename Group>
constexpr int product_count() {
  int count = 0;
  for (const Irrep& irrep : Group::table.irreps) count += irrep.complex_type ? 4 : irrep.dim * irrep.dim * irrep.dim;
  return count;
}

// In an order in which planes that the group exchanges gain their products alike, which keeps equivariance exact.
template <typename Group>
constexpr std::array<Product, product_count<Group>()> products() {
  std::array<Product, product_count<Group>()> all{};
  int count = 0;
  for (const Irrep& irrep : Group::table.irreps) {
    if (irrep.complex_type) {
      [[maybe_unused]] const int re = irrep.plane[0][0], im = irrep.plane[0][1];  // nvcc warns for groups without
      all[count++] = {re, re, re, false};
      all[count++] = {im, im, re, false};
      all[count++] = {re, im, im, false};
      all[count++] = {im, re, im, true};
    } else {
      for (int k = 0; k < irrep.dim; ++k)
        for (int i = 0; i < irrep.dim; ++i)
          for (int j = 0; j < irrep.dim; ++j)
            all[count++] = {irrep.plane[i][j], irrep.plane[i][k], irrep.plane[j][k], false};
    }
  }
  return all;
}

// What each coefficient is divided by on the way back, as a factor: 1 / Σ_g (weight of f[g] in it)², a power of two.
template <typename Group>
constexpr std::array<double, Group::table.order> inverse_scales() {
  constexpr int order = Group::table.order;
  std::array<double, order> squares{};
  for (int g = 0; g < order; ++g) {
    double f[order] = {};
    f[g] = 1;
    for (const Butterfly& step : Group::table.butterflies) {
      const double sum = f[step.a] + f[step.b], difference = f[step.a] - f[step.b];
      f[step.a] = sum;
      f[step.b] = step.turned ? -difference : difference;
    }
    for (int i = 0; i < order; ++i) squares[i] += f[i] * f[i];
  }
  for (double& square : squares) square = 1 / square;
  return squares;
}

// Calls function(Fourier…{}) for the group of that name.
template <typename Function>
auto with_fourier_table(std::string_view name, Function function) {
  if (name == "C1") return function(FourierC1{});
  if (name == "C2" || name == "D1") return function(FourierC2{});
  if (name == "C4") return function(FourierC4{});
  if (name == "D2") return function(FourierD2{});
  return function(FourierD4{});
}

}  // namespace gconv
