// The tiles of the fused dense form, by shape: the one place that chooses. None has been timed. The sums of fprop do
// not depend on the choice.
#pragma once

#include <algorithm>
#include <type_traits>

#include "fused.h"

namespace gconv::cuda {
namespace {

template <int N>
using Constant = std::integral_constant<int, N>;

constexpr int64_t kProcessors = 132;  // of an H200

inline int elements_of_y(const FusedFpropParams& p) {
  return p.shape.lifting && p.adjoint ? 1 : static_cast<int>(p.shape.order());
}

// Calls function(elements of y, rows, units): a warp makes 16 · rows pixels × 8 · units out fields of all elements,
// within 128 registers of sums a thread. Of two heights the larger reads the filter less often; where it leaves
// multiprocessors without a block, the smaller.
template <typename Function>
auto with_mma_tile(const FusedFpropParams& p, Function function) {
  const ConvShape& s = p.shape;
  const bool narrow = s.out_fields <= 8;
  const auto fills = [&](int pixels, int out_fields) {
    const int64_t pixel_tiles = s.batch * s.rows.out * s.columns.out / pixels;
    return pixel_tiles * ((s.out_fields - 1) / out_fields + 1) * s.groups >= kProcessors;
  };
  switch (elements_of_y(p)) {
    case 1:
      if (narrow) return function(Constant<1>(), Constant<4>(), Constant<1>());
      return function(Constant<1>(), Constant<4>(), Constant<4>());
    case 2:
      if (narrow) return function(Constant<2>(), Constant<4>(), Constant<1>());
      return function(Constant<2>(), Constant<2>(), Constant<4>());
    case 4:
      if (narrow) return function(Constant<4>(), Constant<2>(), Constant<1>());
      if (fills(192, 16)) return function(Constant<4>(), Constant<3>(), Constant<2>());
      return function(Constant<4>(), Constant<2>(), Constant<2>());
    default:
      if (narrow) return function(Constant<8>(), Constant<2>(), Constant<1>());
      if (fills(128, 16)) return function(Constant<8>(), Constant<2>(), Constant<2>());
      return function(Constant<8>(), Constant<1>(), Constant<2>());
  }
}

// Calls function(elements of y, units): a block makes 8 · units out fields of all elements.
template <typename Function>
auto with_simt_tile(const FusedFpropParams& p, Function function) {
  const auto with_units = [&](auto elements) {
    return p.shape.out_fields <= 8 ? function(elements, Constant<1>()) : function(elements, Constant<2>());
  };
  switch (elements_of_y(p)) {
    case 1: return with_units(Constant<1>());
    case 2: return with_units(Constant<2>());
    case 4: return with_units(Constant<4>());
    default: return with_units(Constant<8>());
  }
}

// Of a block of wgrad: in fields of all elements of x × out fields of all elements of y.
struct WgradSizes {
  int rows, columns;
};

inline WgradSizes wgrad_sizes(const ConvShape& shape, int bytes, bool mma) {
  const int64_t order = shape.order(), in = order * shape.in_fields, out = order * shape.out_fields;
  // An element has whole chunks of 16 bytes.
  const bool halves = order * 16 / bytes <= 32;
  if (halves && in <= 32) return {32, out <= 32 ? 32 : 64};
  return mma && std::max(in, out) > 64 ? WgradSizes{128, 128} : WgradSizes{64, 64};
}

constexpr int64_t kWgradBlocks = 4 * kProcessors;  // that a launch should have

}  // namespace
}  // namespace gconv::cuda
