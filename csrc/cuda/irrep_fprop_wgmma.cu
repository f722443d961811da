#include "irrep_fprop_wgmma.h"

#include "irrep_fprop_steps.h"

namespace gconv::cuda {
namespace {

// Whether kernels may count in 32 bits within a tap's planes of Ψ̂.
bool planes_fit(const ConvShape& s) { return 1. * s.order() * s.in_fields * s.out_fields <= INT32_MAX; }

}  // namespace

bool irrep_fprop_wgmma_takes(const IrrepFpropParams& params, const void* transformed) {
  const ConvShape& s = params.shape;
  if (!transformed || s.lifting || params.relaxed_weight || params.x_activated) return false;
  if ((s.group->name != "C4" && s.group->name != "D4") || s.rows.spread != 1 || s.columns.spread != 1) return false;
  using Number = uint16_t;
  constexpr int kVector = 16 / sizeof(Number);
  const int64_t filter = reinterpret_cast<uintptr_t>(transformed) / sizeof(Number) | s.out_fields;
  return map_width<Number>(params.x, params.x_strides, s.in_fields, kVector) == kVector && filter % kVector == 0 &&
         map_width<Number>(params.y, params.y_strides, s.out_fields, 2) == 2 && coordinates_fit(s) &&
         offsets_fit(s, params.x_strides) && planes_fit(s);
}

}  // namespace gconv::cuda
