// The index algebra of convolutions, written once.
//
//   y[b, o, u, p] = Σ_c Σ_w Σ_s ψ[o, c, w, s] · x[b, c, u·w, stride·p + dilation·(u·s) − padding]
//
// The group acts on the pairs (w, s) of relative element and tap; each orbit is one step of the irrep algorithm:
//
//   X[g] = x[c, g·w₀, … + dilation·(g·s₀)]      Ψ[g] = ψ[o, c, g·w₀, g·s₀]      y[u] = Σ_c Σ_orbits Σ_k Ψ[k] · X[u·k]
//
// In a group convolution every tap is the start (w₀ = e, s₀) of an orbit of its own. A lifting convolution has no w: the
// orbits are those of the taps, and a tap that s elements leave alone counts s times, so its Ψ is divided by s.
// No torch header here.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "group_tables.h"

namespace gconv {

// One direction of space. Pixel i of the input stands at position i + padding of a line of zeros; output pixel p reads the
// positions stride·p + position(tap).
//
// dgrad of a strided convolution, read as fprop, has every other pixel (spread − 1 of them) between two of its input's a
// zero. Its output pixels of one phase, spread·p + phase, read no zeros but for whole taps: see phase().
struct Axis {
  int64_t in = 0, out = 0, stride = 1, padding = 0, dilation = 1, spread = 1, residue = 0;

  // -1 where every output pixel reads a zero.
  int64_t position(int64_t tap) const {
    const int64_t at = residue + dilation * tap;
    return at % spread == 0 ? at / spread : -1;
  }
  int64_t reach(int64_t taps) const {
    int64_t last = 0;
    for (int64_t tap = 0; tap < taps; ++tap) last = std::max(last, position(tap));
    return (out - 1) * stride + last + 1;
  }
  // Of an axis with spread and stride 1, whose pixel i stands at spread·i + padding: the output pixels spread·p + phase.
  Axis phase(int64_t phase, int64_t taps) const {
    Axis part = *this;
    part.out = out > phase ? (out - phase - 1) / spread + 1 : 0;
    const int64_t start = phase - padding;
    int64_t first = 0;
    for (int64_t tap = taps - 1; tap >= 0; --tap)
      if ((start + dilation * tap) % spread == 0) first = (start + dilation * tap) / spread;
    part.padding = -first;
    part.residue = start - spread * first;
    return part;
  }
};

struct ConvShape {
  const PointGroup* group = nullptr;
  bool lifting = false;
  int64_t batch = 0, groups = 1;          // blocks of fields that are convolved apart
  int64_t in_fields = 0, out_fields = 0;  // of one block
  int size = 0;                           // taps a side
  Axis rows, columns;

  int64_t order() const { return group->order; }
  int64_t in_elements() const { return lifting ? 1 : group->order; }
  int64_t taps() const { return int64_t{size} * size; }
};

// Of a feature map, in numbers. An image has element stride 0.
struct MapStrides {
  int64_t batch = 0, field = 0, element = 0, row = 0, column = 0;
};

struct Orbit {
  int tap;         // s₀
  int stabiliser;  // elements that leave the pair alone
};

// The position of a tap in both directions; row -1 where every output pixel reads a zero.
struct Position {
  int64_t row, column;
};

inline Position tap_position(const ConvShape& shape, int tap) {
  const Position at{shape.rows.position(tap / shape.size), shape.columns.position(tap % shape.size)};
  return at.row < 0 || at.column < 0 ? Position{-1, -1} : at;
}

// Without those that read nothing but zeros.
inline std::vector<Orbit> orbits(const ConvShape& shape) {
  std::vector<Orbit> found;
  std::vector<bool> seen(shape.taps());
  for (int tap = 0; tap < shape.taps(); ++tap) {
    if (!shape.lifting) {
      bool reads = false;
      for (int g = 0; g < shape.order(); ++g)
        reads |= tap_position(shape, moved_tap(shape.group->matrices[g], tap, shape.size)).row >= 0;
      if (reads) found.push_back({tap, 1});
    } else if (!seen[tap]) {
      int stabiliser = 0;
      for (int g = 0; g < shape.order(); ++g) {
        const int moved = moved_tap(shape.group->matrices[g], tap, shape.size);
        seen[moved] = true;
        stabiliser += moved == tap;
      }
      found.push_back({tap, stabiliser});
    }
  }
  return found;
}

// position[orbit · |P| + g] of ψ's block [w, tap] that holds Ψ[g].
inline std::vector<int32_t> orbit_positions(const ConvShape& shape, const std::vector<Orbit>& orbits) {
  std::vector<int32_t> position;
  position.reserve(orbits.size() * shape.order());
  for (const Orbit& orbit : orbits)
    for (int g = 0; g < shape.order(); ++g)
      position.push_back(static_cast<int32_t>((shape.lifting ? 0 : g * shape.taps()) +
                                              moved_tap(shape.group->matrices[g], orbit.tap, shape.size)));
  return position;
}

// The adjoint of a convolution is one with ψ'[c, o, a, b] = ψ[o, c, a⁻¹, a⁻¹·(last tap − b)]: where each number of a block
// of ψ' lies in that of ψ.
inline std::vector<int32_t> adjoint_positions(const ConvShape& shape) {
  std::vector<int32_t> position;
  const int taps = static_cast<int>(shape.taps());
  for (int a = 0; a < shape.order(); ++a)
    for (int b = 0; b < taps; ++b) {
      const int inverse = shape.group->inverse[a];
      position.push_back(inverse * taps + taps - 1 - moved_tap(shape.group->matrices[inverse], b, shape.size));
    }
  return position;
}

}  // namespace gconv
