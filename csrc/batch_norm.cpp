// Batch normalisation as ops: checks, allocation, threads. The sums are in cpu/batch_norm.
#include "batch_norm.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "checks.h"
#include "cpu/batch_norm.h"

namespace gconv {
namespace {

cpu::BatchNormParams checked(const at::Tensor& x, double eps) {
  TORCH_CHECK_VALUE(x.dim() == 5, "x must be [B, C, |P|, H, W], got shape ", x.sizes());
  TORCH_CHECK_TYPE(x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble,
                   "x must be float32 or float64, got ", x.scalar_type());
  TORCH_CHECK_VALUE(x.numel() > 0, "x must have at least one number in each field, got shape ", x.sizes());
  TORCH_CHECK_VALUE(eps >= 0, "eps must be at least 0, got ", eps);
  return {scalar_type(x, "x"), x.size(0), x.size(1), x.size(2) * x.size(3) * x.size(4), eps};
}

// One number a field, contiguous; undefined where it is not given.
at::Tensor of_fields(const std::optional<at::Tensor>& tensor, const char* name, const at::Tensor& x) {
  if (!tensor) return {};
  check_like(*tensor, name, x, "x");
  check_shape(*tensor, name, {x.size(1)});
  return tensor->contiguous();
}

const void* numbers(const at::Tensor& tensor) { return tensor.defined() ? tensor.const_data_ptr() : nullptr; }

}  // namespace

at::Tensor batch_norm_inference_cpu(const at::Tensor& x_, const std::optional<at::Tensor>& weight_,
                                    const std::optional<at::Tensor>& bias_, const at::Tensor& mean_,
                                    const at::Tensor& var_, double eps, bool relu) {
  const cpu::BatchNormParams params = checked(x_, eps);
  const at::Tensor x = x_.contiguous(), weight = of_fields(weight_, "weight", x), bias = of_fields(bias_, "bias", x);
  const at::Tensor mean = of_fields(mean_, "mean", x), var = of_fields(var_, "var", x);
  at::Tensor y = at::empty(x.sizes(), x.options());
  at::parallel_for(0, params.fields, 1, [&](int64_t begin, int64_t end) {
    cpu::batch_norm_inference(params, x.const_data_ptr(), numbers(weight), numbers(bias), mean.const_data_ptr(),
                              var.const_data_ptr(), relu, y.mutable_data_ptr(), {begin, end});
  });
  return y;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> batch_norm_fprop_cpu(const at::Tensor& x_,
                                                                    const std::optional<at::Tensor>& weight_,
                                                                    const std::optional<at::Tensor>& bias_, double eps,
                                                                    bool relu) {
  const cpu::BatchNormParams params = checked(x_, eps);
  const at::Tensor x = x_.contiguous(), weight = of_fields(weight_, "weight", x), bias = of_fields(bias_, "bias", x);
  at::Tensor y = at::empty(x.sizes(), x.options());
  at::Tensor mean = at::empty({params.fields}, x.options()), var = at::empty_like(mean);
  at::parallel_for(0, params.fields, 1, [&](int64_t begin, int64_t end) {
    cpu::batch_norm_fprop(params, x.const_data_ptr(), numbers(weight), numbers(bias), relu, y.mutable_data_ptr(),
                          mean.mutable_data_ptr(), var.mutable_data_ptr(), {begin, end});
  });
  return {y, mean, var};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> batch_norm_dgrad_cpu(const at::Tensor& dy_, const at::Tensor& x_,
                                                                    const at::Tensor& mean_, const at::Tensor& var_,
                                                                    const std::optional<at::Tensor>& weight_,
                                                                    const std::optional<at::Tensor>& activated_,
                                                                    double eps, bool need_x) {
  const cpu::BatchNormParams params = checked(x_, eps);
  check_like(dy_, "dy", x_, "x");
  check_shape(dy_, "dy", x_.sizes());
  if (activated_) check_like(*activated_, "activated", x_, "x"), check_shape(*activated_, "activated", x_.sizes());
  const at::Tensor activated = activated_ ? activated_->contiguous() : at::Tensor();
  const at::Tensor x = x_.contiguous(), dy = dy_.contiguous(), weight = of_fields(weight_, "weight", x);
  const at::Tensor mean = of_fields(mean_, "mean", x), var = of_fields(var_, "var", x);
  at::Tensor dx = need_x ? at::empty(x.sizes(), x.options()) : at::empty({0}, x.options());
  at::Tensor dweight = at::empty({params.fields}, x.options()), dbias = at::empty_like(dweight);
  at::parallel_for(0, params.fields, 1, [&](int64_t begin, int64_t end) {
    cpu::batch_norm_dgrad(params, dy.const_data_ptr(), x.const_data_ptr(), mean.const_data_ptr(), var.const_data_ptr(),
                          numbers(weight), numbers(activated), need_x ? dx.mutable_data_ptr() : nullptr,
                          dweight.mutable_data_ptr(), dbias.mutable_data_ptr(), {begin, end});
  });
  return {dx, dweight, dbias};
}

}  // namespace gconv
