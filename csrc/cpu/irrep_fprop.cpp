#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

#include "irrep_plan.h"

namespace gconv::cpu {

namespace baseline {
constexpr int kVectorBytes = 16, kVectorRegisters = 16;
#include "irrep_vector_kernel.h"
#include "irrep_multiply_kernel.h"
#include "irrep_fprop_kernel.h"
}  // namespace baseline

GCONV_TARGET_AVX2
namespace avx2 {
constexpr int kVectorBytes = 32, kVectorRegisters = 16;
#include "irrep_vector_kernel.h"
#include "irrep_multiply_kernel.h"
#include "irrep_fprop_kernel.h"
}  // namespace avx2
GCONV_TARGET_END

GCONV_TARGET_AVX512
namespace avx512 {
constexpr int kVectorBytes = 64, kVectorRegisters = 32;
#include "irrep_vector_kernel.h"
#include "irrep_multiply_kernel.h"
#include "irrep_fprop_kernel.h"
}  // namespace avx512
GCONV_TARGET_END

std::unique_ptr<IrrepFpropPlan> plan_irrep_fprop(const IrrepFpropParams& params, InstructionSet level) {
  switch (level) {
    case InstructionSet::Avx512: return make_plan<avx512::IrrepFprop, IrrepFpropPlan>(params);
    case InstructionSet::Avx2: return make_plan<avx2::IrrepFprop, IrrepFpropPlan>(params);
    default: return make_plan<baseline::IrrepFprop, IrrepFpropPlan>(params);
  }
}

}  // namespace gconv::cpu
