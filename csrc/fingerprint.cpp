// The fingerprint of a tensor: threads. What it is stands in cpu/fingerprint.h.
#include "fingerprint.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <vector>

#include "cpu/fingerprint.h"

namespace gconv {

std::array<uint64_t, 2> fingerprint(const at::Tensor& x_) {
  constexpr int64_t kPiece = 128 << 10;  // bytes
  const at::Tensor x = x_.contiguous();
  const char* data = static_cast<const char*>(x.const_data_ptr());
  const int64_t bytes = static_cast<int64_t>(x.nbytes()), pieces = (bytes + kPiece - 1) / kPiece;
  // Those of the pieces, whose borders no number of threads moves, and then one of these.
  std::vector<cpu::Fingerprint> parts(pieces);
  at::parallel_for(0, pieces, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      parts[i] = cpu::fingerprint(data + i * kPiece, std::min(kPiece, bytes - i * kPiece));
  });
  return cpu::fingerprint(parts.data(), pieces * static_cast<int64_t>(sizeof parts[0]));
}

}  // namespace gconv
