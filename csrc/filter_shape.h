// The index algebra of filter banks, written once.
//
//   weight   ψ[l, o, c, w, s]    banks × output fields × input fields × relative elements × taps
//   filter   F[o, u, c, v, t]    output fields × elements × input fields × elements × taps
//
//   F[o, u, c, v, t] = Σ_l coefficient_l(u, w) · ψ[l, o, c, w, s]     with v = u·w and t = u·s
//
// One (w, s) or (v, t) pair is a position in a block of `block()` numbers. A lifting convolution has no group axis
// on its input, so there w and v take a single value and only the taps move. No torch header here.
#pragma once

#include <cstdint>
#include <vector>

#include "group_tables.h"

namespace gconv {

enum class RelaxOn { Input, Output };  // the relaxed weight is taken at v (input element) or at u (output element)

struct FilterShape {
  const PointGroup* group = nullptr;
  int64_t banks = 1, out_fields = 0, in_fields = 0;
  bool lifting = false;
  int size = 0;  // taps a side

  int64_t elements() const { return group->order; }
  int64_t relative_elements() const { return lifting ? 1 : group->order; }
  int64_t taps() const { return int64_t{size} * size; }
  int64_t block() const { return relative_elements() * taps(); }
  int64_t pairs() const { return out_fields * in_fields; }
};

// The position (u·w, u·s) of position (w, s). The inverse map is that of u⁻¹.
constexpr int moved_position(const PointGroup& group, bool lifting, int size, int u, int position) {
  const int taps = size * size, w = position / taps, s = position % taps;
  return (lifting ? 0 : group.product[u][w]) * taps + moved_tap(group.matrices[u], s, size);
}

// moved[u * block + (w, s)] = position (u·w, u·s).
inline std::vector<int32_t> moved_positions(const FilterShape& shape) {
  std::vector<int32_t> moved;
  moved.reserve(shape.elements() * shape.block());
  for (int u = 0; u < shape.elements(); ++u)
    for (int position = 0; position < shape.block(); ++position)
      moved.push_back(moved_position(*shape.group, shape.lifting, shape.size, u, position));
  return moved;
}

// The element whose relaxed weight multiplies ψ[l, o, c, w, ·] in the filter of output element u.
inline int relaxed_element(const FilterShape& shape, RelaxOn relax_on, int u, int w) {
  return relax_on == RelaxOn::Output ? u : shape.group->product[u][w];
}

}  // namespace gconv
