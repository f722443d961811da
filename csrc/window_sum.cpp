// Sums over windows as ops: checks, allocation, threads. The sums are in cpu/window_sum.
#include "window_sum.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "checks.h"
#include "cpu/window_sum.h"

namespace gconv {
namespace {

constexpr int64_t kGrain = 1 << 15;  // numbers of a plane times taps, below which a thread does not pay

cpu::WindowSumParams checked(const at::Tensor& tensor, const char* name, at::ArrayRef<double> taps,
                             at::IntArrayRef plane, int64_t stride, int64_t padding) {
  TORCH_CHECK_TYPE(tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kDouble, name,
                   " must be float32 or float64, got ", tensor.scalar_type());
  TORCH_CHECK_VALUE(tensor.dim() >= 2, name, " must be [..., H, W], got shape ", tensor.sizes());
  const int64_t size = std::llround(std::sqrt(static_cast<double>(taps.size())));
  TORCH_CHECK_VALUE(size >= 1 && size * size == static_cast<int64_t>(taps.size()),
                    "taps must be the k * k numbers of a window, got ", taps.size());
  for (int64_t i = 0; i < size; ++i)
    for (int64_t j = 0; j < size; ++j)
      TORCH_CHECK_VALUE(
          taps[i * size + j] == taps[j * size + i] && taps[i * size + j] == taps[(size - 1 - i) * size + j],
          "taps must be the same after each turn and reflection of the window, got ", taps);
  TORCH_CHECK_VALUE(stride >= 1 && stride <= INT32_MAX, "stride must be from 1 to 2^31 - 1, got ", stride);
  TORCH_CHECK_VALUE(padding >= 0 && padding <= INT32_MAX, "padding must be from 0 to 2^31 - 1, got ", padding);
  TORCH_CHECK_VALUE(std::min(plane[0], plane[1]) + 2 * padding >= size, "with padding ", padding, " planes of ",
                    plane[0], " x ", plane[1], " pixels hold no window of ", size, " x ", size);
  return {scalar_type(tensor, name), plane[0], plane[1], stride, padding, size, taps.vec()};
}

template <typename Run>
void over_planes(const cpu::WindowSumParams& params, const at::Tensor& of, Run run) {
  const int64_t plane = of.size(-2) * of.size(-1), taps = params.size * params.size;
  if (of.numel() == 0) return;
  at::parallel_for(0, of.numel() / plane, std::max<int64_t>(1, kGrain / (plane * taps)),
                   [&](int64_t begin, int64_t end) { run(cpu::Planes{begin, end}); });
}

at::Tensor planes_like(const at::Tensor& of, int64_t height, int64_t width) {
  std::vector<int64_t> sizes = of.sizes().vec();
  sizes[sizes.size() - 2] = height, sizes[sizes.size() - 1] = width;
  return at::empty(sizes, of.options());
}

}  // namespace

at::Tensor window_sum_fprop_cpu(const at::Tensor& x_, at::ArrayRef<double> taps, int64_t stride, int64_t padding) {
  const at::IntArrayRef plane = x_.dim() >= 2 ? x_.sizes().slice(x_.dim() - 2) : at::IntArrayRef{0, 0};
  const cpu::WindowSumParams params = checked(x_, "x", taps, plane, stride, padding);
  const at::Tensor x = x_.contiguous();
  at::Tensor y = planes_like(x, params.out_height(), params.out_width());
  over_planes(params, y, [&](cpu::Planes planes) {
    cpu::window_sum_fprop(params, x.const_data_ptr(), y.mutable_data_ptr(), planes);
  });
  return y;
}

at::Tensor window_sum_dgrad_cpu(const at::Tensor& dy_, at::ArrayRef<double> taps, at::IntArrayRef input_size,
                                int64_t stride, int64_t padding) {
  TORCH_CHECK_VALUE(input_size.size() == 2 && input_size[0] >= 1 && input_size[1] >= 1,
                    "input_size must be two numbers of at least 1, got ", input_size);
  const cpu::WindowSumParams params = checked(dy_, "dy", taps, input_size, stride, padding);
  TORCH_CHECK_VALUE(dy_.size(-2) == params.out_height() && dy_.size(-1) == params.out_width(),
                    "dy must have planes of ", params.out_height(), " x ", params.out_width(), " pixels, got shape ",
                    dy_.sizes());
  const at::Tensor dy = dy_.contiguous();
  at::Tensor dx = planes_like(dy, params.height, params.width);
  over_planes(params, dx, [&](cpu::Planes planes) {
    cpu::window_sum_dgrad(params, dy.const_data_ptr(), dx.mutable_data_ptr(), planes);
  });
  return dx;
}

}  // namespace gconv
