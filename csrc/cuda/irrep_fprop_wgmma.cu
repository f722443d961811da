#include "irrep_fprop_wgmma.h"

#include "irrep_fprop_steps.h"

namespace gconv::cuda {
namespace {

// Whether kernels may count in 32 bits within a tap's planes of Ψ̂.
bool planes_fit(const ConvShape& s, int64_t pitch) { return 1. * s.order() * s.in_fields * pitch <= INT32_MAX; }

}  // namespace

bool irrep_fprop_wgmma_takes(const IrrepFpropParams& params, const void* transformed) {
  const ConvShape& s = params.shape;
  if (!transformed || s.lifting || params.relaxed_weight || params.x_activated) return false;
  if ((s.group->name != "C4" && s.group->name != "D4") || s.rows.spread != 1 || s.columns.spread != 1) return false;
  using Number = uint16_t;
  constexpr int kVector = 16 / sizeof(Number);
  const int64_t pitch = transformed_pitch(params);
  const int64_t filter = reinterpret_cast<uintptr_t>(transformed) / sizeof(Number) | pitch;
  return map_width<Number>(params.x, params.x_strides, readable_fields(params), kVector) == kVector &&
         filter % kVector == 0 && coordinates_fit(s) && offsets_fit(s, params.x_strides) && planes_fit(s, pitch);
}

}  // namespace gconv::cuda
