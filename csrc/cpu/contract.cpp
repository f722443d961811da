#include "contract.h"

#include <cstring>

namespace gconv::cpu {

namespace baseline {
constexpr int kVectorBytes = 16, kVectorRegisters = 16;
#include "contract_kernel.h"
}  // namespace baseline

GCONV_TARGET_AVX2
namespace avx2 {
constexpr int kVectorBytes = 32, kVectorRegisters = 16;
#include "contract_kernel.h"
}  // namespace avx2
GCONV_TARGET_END

GCONV_TARGET_AVX512
namespace avx512 {
constexpr int kVectorBytes = 64, kVectorRegisters = 32;
#include "contract_kernel.h"
}  // namespace avx512
GCONV_TARGET_END

void contract(const ContractParams& params, const void* x, const void* phi, void* z, int64_t first, int64_t begin, int64_t end,
              InstructionSet level) {
  switch (level) {
    case InstructionSet::Avx512: return avx512::contract(params, x, phi, z, first, begin, end);
    case InstructionSet::Avx2: return avx2::contract(params, x, phi, z, first, begin, end);
    case InstructionSet::Baseline: return baseline::contract(params, x, phi, z, first, begin, end);
  }
}

void contract_hgrad(const ContractParams& params, const void* x, const void* dz, void* dphi, int64_t first, int64_t begin,
                    int64_t end, InstructionSet level) {
  switch (level) {
    case InstructionSet::Avx512: return avx512::contract_hgrad(params, x, dz, dphi, first, begin, end);
    case InstructionSet::Avx2: return avx2::contract_hgrad(params, x, dz, dphi, first, begin, end);
    case InstructionSet::Baseline: return baseline::contract_hgrad(params, x, dz, dphi, first, begin, end);
  }
}

void contract_dgrad(const ContractParams& params, const void* phi, const void* dz, void* dx, int64_t first, int64_t end,
                    int64_t image, int64_t image_end, InstructionSet level) {
  switch (level) {
    case InstructionSet::Avx512: return avx512::contract_dgrad(params, phi, dz, dx, first, end, image, image_end);
    case InstructionSet::Avx2: return avx2::contract_dgrad(params, phi, dz, dx, first, end, image, image_end);
    case InstructionSet::Baseline: return baseline::contract_dgrad(params, phi, dz, dx, first, end, image, image_end);
  }
}

}  // namespace gconv::cpu
