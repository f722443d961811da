#include "expand_filter.h"

#include <algorithm>
#include <vector>

namespace gconv::cpu {

namespace baseline {
#include "expand_filter_kernel.h"
}

GCONV_TARGET_AVX2
namespace avx2 {
#include "expand_filter_kernel.h"
}
GCONV_TARGET_END

GCONV_TARGET_AVX512
namespace avx512 {
#include "expand_filter_kernel.h"
}
GCONV_TARGET_END

void expand_filter(const ExpandFilterParams& params, int64_t begin, int64_t end, InstructionSet level) {
  switch (level) {
    case InstructionSet::Avx512: return avx512::expand_filter(params, begin, end);
    case InstructionSet::Avx2: return avx2::expand_filter(params, begin, end);
    case InstructionSet::Baseline: return baseline::expand_filter(params, begin, end);
  }
}

void expand_filter_backward(const ExpandFilterBackwardParams& params, int64_t begin, int64_t end,
                            InstructionSet level) {
  switch (level) {
    case InstructionSet::Avx512: return avx512::expand_filter_backward(params, begin, end);
    case InstructionSet::Avx2: return avx2::expand_filter_backward(params, begin, end);
    case InstructionSet::Baseline: return baseline::expand_filter_backward(params, begin, end);
  }
}

}  // namespace gconv::cpu
