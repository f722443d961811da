#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

#include "../irrep_tables.h"
#include "irrep.h"

namespace gconv::cpu {

namespace baseline {
constexpr int kVectorBytes = 16, kVectorRegisters = 16;
#include "irrep_vector_kernel.h"
#include "irrep_wgrad_kernel.h"
}  // namespace baseline

GCONV_TARGET_AVX2
namespace avx2 {
constexpr int kVectorBytes = 32, kVectorRegisters = 16;
#include "irrep_vector_kernel.h"
#include "irrep_wgrad_kernel.h"
}  // namespace avx2
GCONV_TARGET_END

GCONV_TARGET_AVX512
namespace avx512 {
constexpr int kVectorBytes = 64, kVectorRegisters = 32;
#include "irrep_vector_kernel.h"
#include "irrep_wgrad_kernel.h"
}  // namespace avx512
GCONV_TARGET_END

namespace {

// The class of one instruction set, for the scalar type and the group of the call.
template <template <typename, typename> class Plan>
std::unique_ptr<IrrepWgradPlan> make(const IrrepWgradParams& params) {
  return with_fourier_table(params.shape.group->name, [&](auto table) -> std::unique_ptr<IrrepWgradPlan> {
    using Group = decltype(table);
    switch (params.type) {
      case ScalarType::Float64: return std::make_unique<Plan<double, Group>>(params);
      case ScalarType::Float32: return std::make_unique<Plan<float, Group>>(params);
      case ScalarType::BFloat16: return std::make_unique<Plan<BFloat16, Group>>(params);
      default: return std::make_unique<Plan<Float16, Group>>(params);
    }
  });
}

}  // namespace

std::unique_ptr<IrrepWgradPlan> plan_irrep_wgrad(const IrrepWgradParams& params, InstructionSet level) {
  switch (level) {
    case InstructionSet::Avx512: return make<avx512::IrrepWgrad>(params);
    case InstructionSet::Avx2: return make<avx2::IrrepWgrad>(params);
    default: return make<baseline::IrrepWgrad>(params);
  }
}

}  // namespace gconv::cpu
