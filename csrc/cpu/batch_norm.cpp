#include "batch_norm.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace gconv::cpu {

namespace baseline {
constexpr int kVectorBytes = 16;
#include "vector_kernel.h"
#include "batch_norm_kernel.h"
}  // namespace baseline

GCONV_TARGET_AVX2
namespace avx2 {
constexpr int kVectorBytes = 32;
#include "vector_kernel.h"
#include "batch_norm_kernel.h"
}  // namespace avx2
GCONV_TARGET_END

GCONV_TARGET_AVX512
namespace avx512 {
constexpr int kVectorBytes = 64;
#include "vector_kernel.h"
#include "batch_norm_kernel.h"
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
      case InstructionSet::Avx512: return visit(avx512::BatchNorm<T>{}, in, out);
      case InstructionSet::Avx2: return visit(avx2::BatchNorm<T>{}, in, out);
      case InstructionSet::Baseline: return visit(baseline::BatchNorm<T>{}, in, out);
    }
  };
  type == ScalarType::Float64 ? typed(double{}) : typed(float{});
}

}  // namespace

void batch_norm_inference(const BatchNormParams& params, const void* x, const void* weight, const void* bias,
                          const void* mean, const void* var, bool relu, void* y, Fields fields, InstructionSet level) {
  run(params.type, level, [&](auto kernels, auto in, auto out) {
    kernels.inference(params, in(x), in(weight), in(bias), in(mean), in(var), relu, out(y), fields);
  });
}

void batch_norm_fprop(const BatchNormParams& params, const void* x, const void* weight, const void* bias, bool relu,
                      void* y, void* mean, void* var, Fields fields, InstructionSet level) {
  run(params.type, level, [&](auto kernels, auto in, auto out) {
    kernels.fprop(params, in(x), in(weight), in(bias), relu, out(y), out(mean), out(var), fields);
  });
}

void batch_norm_dgrad(const BatchNormParams& params, const void* dy, const void* x, const void* mean, const void* var,
                      const void* weight, const void* activated, void* dx, void* dweight, void* dbias, Fields fields,
                      InstructionSet level) {
  run(params.type, level, [&](auto kernels, auto in, auto out) {
    kernels.dgrad(params, in(dy), in(x), in(mean), in(var), in(weight), in(activated), out(dx), out(dweight),
                  out(dbias), fields);
  });
}

}  // namespace gconv::cpu
