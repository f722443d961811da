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
#include "irrep_wgrad_multiply_kernel.h"
#include "irrep_wgrad_kernel.h"
}  // namespace baseline

GCONV_TARGET_AVX2
namespace avx2 {
constexpr int kVectorBytes = 32, kVectorRegisters = 16;
#include "vector_kernel.h"
#include "irrep_vector_kernel.h"
#include "irrep_planes_kernel.h"
#include "irrep_wgrad_multiply_kernel.h"
#include "irrep_wgrad_kernel.h"
}  // namespace avx2
GCONV_TARGET_END

GCONV_TARGET_AVX512
namespace avx512 {
constexpr int kVectorBytes = 64, kVectorRegisters = 32;
#include "vector_kernel.h"
#include "irrep_vector_kernel.h"
#include "irrep_planes_kernel.h"
#include "irrep_wgrad_multiply_kernel.h"
#include "irrep_wgrad_kernel.h"
}  // namespace avx512
GCONV_TARGET_END

std::unique_ptr<IrrepWgradPlan> plan_irrep_wgrad(const IrrepWgradParams& params, InstructionSet level) {
  switch (level) {
    case InstructionSet::Avx512: return make_plan<avx512::IrrepWgrad, IrrepWgradPlan>(params);
    case InstructionSet::Avx2: return make_plan<avx2::IrrepWgrad, IrrepWgradPlan>(params);
    default: return make_plan<baseline::IrrepWgrad, IrrepWgradPlan>(params);
  }
}

}  // namespace gconv::cpu
