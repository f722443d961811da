#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <type_traits>
#include <utility>
#include <vector>

#include "irrep_plan.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace gconv::cpu {

namespace baseline {
constexpr int kVectorBytes = 16, kVectorRegisters = 16;
#include "vector_kernel.h"
#include "irrep_vector_kernel.h"
#include "irrep_planes_kernel.h"
#include "irrep_tile_kernel.h"
#include "irrep_multiply_kernel.h"
#include "irrep_fprop_kernel.h"
}  // namespace baseline

GCONV_TARGET_AVX2
namespace avx2 {
constexpr int kVectorBytes = 32, kVectorRegisters = 16;
#include "vector_kernel.h"
#include "irrep_vector_kernel.h"
#include "irrep_planes_kernel.h"
#include "irrep_tile_kernel.h"
#include "irrep_multiply_kernel.h"
#include "irrep_fprop_kernel.h"
}  // namespace avx2
GCONV_TARGET_END

GCONV_TARGET_AVX512
namespace avx512 {
constexpr int kVectorBytes = 64, kVectorRegisters = 32;
#include "vector_kernel.h"
#include "irrep_vector_kernel.h"
#include "irrep_planes_kernel.h"
#include "irrep_tile_kernel.h"
#include "irrep_multiply_kernel.h"
#include "irrep_fprop_kernel.h"
}  // namespace avx512
GCONV_TARGET_END

namespace {

std::unique_ptr<IrrepFpropPlan> plan_phase(const IrrepFpropParams& params, InstructionSet level) {
  switch (level) {
    case InstructionSet::Avx512: return make_plan<avx512::IrrepFprop, IrrepFpropPlan>(params);
    case InstructionSet::Avx2: return make_plan<avx2::IrrepFprop, IrrepFpropPlan>(params);
    default: return make_plan<baseline::IrrepFprop, IrrepFpropPlan>(params);
  }
}

// With a spread, the output pixels of each phase read taps of their own, so each phase is a convolution of its own.
std::vector<IrrepFpropParams> phases_of(const IrrepFpropParams& params) {
  const Axis &rows = params.shape.rows, &columns = params.shape.columns;
  const int64_t size = params.type == ScalarType::Float64 ? 8 : params.type == ScalarType::Float32 ? 4 : 2;
  std::vector<IrrepFpropParams> phases;
  for (int64_t r = 0; r < std::min(rows.spread, rows.out); ++r)
    for (int64_t c = 0; c < std::min(columns.spread, columns.out); ++c) {
      IrrepFpropParams phase = params;
      phase.most_images = 1;  // the same units in every phase
      phase.shape.rows = rows.phase(r, phase.shape.size);
      phase.shape.columns = columns.phase(c, phase.shape.size);
      phase.y = static_cast<char*>(params.y) + (r * params.y_strides.row + c * params.y_strides.column) * size;
      phase.y_strides.row *= rows.spread;
      phase.y_strides.column *= columns.spread;
      phases.push_back(phase);
    }
  return phases;
}

bool is_zero(const IrrepFpropParams& phase) { return !phase.bias && orbits(phase.shape).empty(); }

class Phases final : public IrrepFpropPlan {
 public:
  Phases(const IrrepFpropParams& params, InstructionSet level) {
    for (const IrrepFpropParams& phase : phases_of(params))
      if (!is_zero(phase)) plans_.push_back(plan_phase(phase, level));
  }

  // Every phase has as many.
  int64_t transform_units() const override { return plans_.empty() ? 0 : plans_.front()->transform_units(); }
  void transform_weight(int64_t begin, int64_t end) override {
    for (const auto& plan : plans_) plan->transform_weight(begin, end);
  }
  int64_t stacks() const override { return plans_.empty() ? 0 : plans_.front()->stacks(); }
  void run(int64_t begin, int64_t end, int64_t parts) const override {
    for (const auto& plan : plans_) plan->run(begin, end, parts);
  }
  // Each phase has its own, and nobody asks for them.
  const void* transformed_weight() const override { return nullptr; }
  int64_t transformed_numbers() const override {
    int64_t numbers = 0;
    for (const auto& plan : plans_) numbers += plan->transformed_numbers();
    return numbers;
  }

 private:
  std::vector<std::unique_ptr<IrrepFpropPlan>> plans_;
};

}  // namespace

bool leaves_zeros(const IrrepFpropParams& params) {
  if (params.shape.rows.spread == 1 && params.shape.columns.spread == 1) return false;
  const std::vector<IrrepFpropParams> phases = phases_of(params);
  return std::any_of(phases.begin(), phases.end(), is_zero);
}

std::unique_ptr<IrrepFpropPlan> plan_irrep_fprop(const IrrepFpropParams& params, InstructionSet level) {
  if (params.shape.rows.spread == 1 && params.shape.columns.spread == 1) return plan_phase(params, level);
  return std::make_unique<Phases>(params, level);
}

}  // namespace gconv::cpu
