#include "contract.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace gconv::cpu {

namespace baseline {
constexpr int kVectorBytes = 16, kVectorRegisters = 16;
#include "vector_kernel.h"
#include "contract_kernel.h"
}  // namespace baseline

GCONV_TARGET_AVX2
namespace avx2 {
constexpr int kVectorBytes = 32, kVectorRegisters = 16;
#include "vector_kernel.h"
#include "contract_kernel.h"
}  // namespace avx2
GCONV_TARGET_END

GCONV_TARGET_AVX512
namespace avx512 {
constexpr int kVectorBytes = 64, kVectorRegisters = 32;
#include "vector_kernel.h"
#include "contract_kernel.h"
}  // namespace avx512
GCONV_TARGET_END

namespace {

// visit(the kernels of the type and the instruction set, casts of inputs and of outputs to that type)
template <typename Visit>
void run(ScalarType type, InstructionSet level, Visit visit) {
  const auto typed = [&](auto number) {
    using T = decltype(number);
    const auto in = [](const void* numbers) { return static_cast<const T*>(numbers); };
    const auto out = [](void* numbers) { return static_cast<T*>(numbers); };
    switch (level) {
      case InstructionSet::Avx512: return visit(avx512::Contract<T>{}, in, out);
      case InstructionSet::Avx2: return visit(avx2::Contract<T>{}, in, out);
      case InstructionSet::Baseline: return visit(baseline::Contract<T>{}, in, out);
    }
  };
  type == ScalarType::Float64 ? typed(double{}) : typed(float{});
}

}  // namespace

void contract(const ContractParams& params, const void* x, const void* phi, void* z, Sites sites,
              InstructionSet level) {
  run(params.type, level,
      [&](auto kernels, auto in, auto out) { kernels.contract(params, in(x), in(phi), out(z), sites); });
}

void contract_hgrad(const ContractParams& params, const void* x, const void* dz, void* dphi, Sites sites,
                    InstructionSet level) {
  run(params.type, level,
      [&](auto kernels, auto in, auto out) { kernels.contract_hgrad(params, in(x), in(dz), out(dphi), sites); });
}

void apply_filters(const ContractParams& params, const void* x, const void* filters, void* y, Sites sites,
                   InstructionSet level) {
  run(params.type, level,
      [&](auto kernels, auto in, auto out) { kernels.apply_filters(params, in(x), in(filters), out(y), sites); });
}

void apply_kgrad(const ContractParams& params, const void* x, const void* dy, void* dfilters, Sites sites,
                 InstructionSet level) {
  run(params.type, level,
      [&](auto kernels, auto in, auto out) { kernels.apply_kgrad(params, in(x), in(dy), out(dfilters), sites); });
}

void contract_dgrad(const ContractParams& params, const void* phi, const void* dz, void* dx, Sites sites,
                    InstructionSet level) {
  run(params.type, level,
      [&](auto kernels, auto in, auto out) { kernels.contract_dgrad(params, in(phi), in(dz), out(dx), sites); });
}

void apply_dgrad(const ContractParams& params, const void* filters, const void* dy, void* dx, Sites sites,
                 InstructionSet level) {
  run(params.type, level,
      [&](auto kernels, auto in, auto out) { kernels.apply_dgrad(params, in(filters), in(dy), out(dx), sites); });
}

void pixels_of_map(const ContractMap& shape, const void* map, void* pixels, MapRows rows, InstructionSet level) {
  run(shape.type, level,
      [&](auto kernels, auto in, auto out) { kernels.pixels_of_map(shape, in(map), out(pixels), rows); });
}

void pixels_to_map(const ContractMap& shape, const void* pixels, void* map, MapRows rows, bool add,
                   InstructionSet level) {
  run(shape.type, level, [&](auto kernels, auto in, auto out) {
    add ? kernels.template pixels_to_map<true>(shape, in(pixels), out(map), rows)
        : kernels.template pixels_to_map<false>(shape, in(pixels), out(map), rows);
  });
}

}  // namespace gconv::cpu
