// The contraction behind soft translation as ops: checks, allocation, memory formats, threads, and the products with the last
// weight matrix. The sums over taps are in cpu/contract.
//
// Output pixels are taken in blocks whose hidden features times channels, z [pixels, B, D, C], stay in the second-level cache:
// all of them would need D times the memory of x.
#include "contract.h"

#include <ATen/Parallel.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <c10/util/accumulate.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "checks.h"
#include "cpu/contract.h"

namespace gconv {
namespace {

constexpr int64_t kBlockBytes = 1 << 20;  // of z, for each thread

struct Contraction {
  int64_t batch, fields, in_elements, rows, columns, out_rows, out_columns, out_elements, size, hidden, out_fields, stride, padding;

  int64_t terms() const { return in_elements * size * size; }
  int64_t pixels() const { return out_rows * out_columns; }
  int64_t numbers() const { return hidden * fields; }  // of z in one pixel of one image
};

Contraction checked(const at::Tensor& x, const at::Tensor& hidden, const at::Tensor& weight, int64_t stride, int64_t padding) {
  TORCH_CHECK_VALUE(x.dim() == 5, "x must be [B, C, M, H, W], got shape ", x.sizes());
  TORCH_CHECK_VALUE(hidden.dim() == 6, "hidden must be [H', W', I, M, k*k, D], got shape ", hidden.sizes());
  scalar_type(x, "x");
  check_like(hidden, "hidden", x, "x");
  check_like(weight, "weight", x, "x");
  check_pair({stride, stride}, "stride", 1);
  check_pair({padding, padding}, "padding", 0);
  Contraction s;
  s.batch = x.size(0), s.fields = x.size(1), s.in_elements = x.size(2), s.rows = x.size(3), s.columns = x.size(4);
  s.out_elements = hidden.size(2), s.hidden = hidden.size(5);
  s.size = std::lround(std::sqrt(static_cast<double>(hidden.size(4))));
  s.stride = stride, s.padding = padding;
  TORCH_CHECK_VALUE(weight.dim() == 3, "weight must be [O, C, D], got shape ", weight.sizes());
  s.out_fields = weight.size(0);
  check_shape(weight, "weight", {s.out_fields, s.fields, s.hidden});
  TORCH_CHECK_VALUE(s.size >= 1 && weight.numel() > 0 && s.in_elements >= 1 && s.out_elements >= 1,
                    "x, hidden and weight must have at least one field, element, tap and hidden feature, got shapes ", x.sizes(),
                    ", ", hidden.sizes(), " and ", weight.sizes());
  const int64_t spare_rows = s.rows + 2 * padding - s.size, spare_columns = s.columns + 2 * padding - s.size;
  TORCH_CHECK_VALUE(spare_rows >= 0 && spare_columns >= 0, "x with padding ", padding, " must have at least ", s.size,
                    " rows and columns, got shape ", x.sizes());
  s.out_rows = spare_rows / stride + 1, s.out_columns = spare_columns / stride + 1;
  check_shape(hidden, "hidden", {s.out_rows, s.out_columns, s.out_elements, s.in_elements, s.size * s.size, s.hidden});
  return s;
}

// A zeroed buffer whose vectors may be read beyond its end.
at::Tensor buffer(at::IntArrayRef sizes, const at::TensorOptions& options) {
  const int64_t slack = cpu::kContractSlackBytes / options.dtype().itemsize();
  const int64_t numbers = c10::multiply_integers(sizes);
  return at::zeros({numbers + slack}, options).narrow(0, 0, numbers).view(sizes);
}

// A map [B, C, M, H, W] as [pixels, B, C, M], and back. Through a matrix, which PyTorch transposes faster than it permutes.
at::Tensor pixels_first(const at::Tensor& map) {
  const at::Tensor matrix = map.contiguous().view({map.size(0) * map.size(1) * map.size(2), map.size(3) * map.size(4)});
  return matrix.t().contiguous().view({matrix.size(1), map.size(0), map.size(1), map.size(2)});
}
at::Tensor pixels_last(const at::Tensor& pixels, int64_t rows, int64_t columns) {
  const at::Tensor matrix = pixels.contiguous().view({pixels.size(0), pixels.numel() / pixels.size(0)});
  return matrix.t().contiguous().view({pixels.size(1), pixels.size(2), pixels.size(3), rows, columns});
}

// What the passes share: the operands in the order and the type that sums are formed in, and the blocks of pixels.
struct Operands {
  Contraction s;
  at::TensorOptions options;
  at::Tensor x, hidden, weight;  // [rows, columns, M, B, C] with padding, [P, I, M k², D], [D C, O]
  std::vector<int64_t> offsets;
  cpu::ContractParams params;
  int64_t block = 1;  // pixels

  Operands(const at::Tensor& x_, const at::Tensor& hidden_, const at::Tensor& weight_, const Contraction& shape)
      : s(shape), options(x_.options().dtype(x_.scalar_type() == at::kDouble ? at::kDouble : at::kFloat)) {
    x = buffer({s.rows + 2 * s.padding, s.columns + 2 * s.padding, s.in_elements, s.batch, s.fields}, options);
    inside(x).copy_(pixels_first(x_).permute({0, 3, 1, 2}).unflatten(0, {s.rows, s.columns}));
    hidden = hidden_.to(options).contiguous();
    weight = weight_.to(options).permute({2, 1, 0}).reshape({s.numbers(), s.out_fields});
    const int64_t pixel = x.stride(1), row = x.stride(0);
    for (int64_t m = 0; m < s.in_elements; ++m)
      for (int64_t t = 0; t < s.size * s.size; ++t)
        offsets.push_back(t / s.size * row + t % s.size * pixel + m * x.stride(2));
    params.type = scalar_type(x, "x");
    params.batch = s.batch, params.channels = s.fields, params.hidden = s.hidden, params.terms = s.terms();
    params.columns = s.out_columns;
    params.row_step = s.stride * row, params.column_step = s.stride * pixel;
    params.term_offsets = offsets.data();
    params.pixel_stride = s.out_elements * s.terms() * s.hidden;
    block = std::max<int64_t>(1, kBlockBytes * at::get_num_threads() / (s.batch * s.numbers() * x.element_size()));
  }

  at::Tensor inside(const at::Tensor& padded) const {
    return padded.narrow(0, s.padding, s.rows).narrow(1, s.padding, s.columns);
  }

  // φ of output element i, from pixel 0 on; and dφ likewise.
  char* phi(const at::Tensor& features, int64_t i) const {
    return static_cast<char*>(features.data_ptr()) + i * s.terms() * s.hidden * features.element_size();
  }

  // Rows (pixel, image) of a map [I, P, B, O].
  at::Tensor rows_of(const at::Tensor& map, int64_t i, int64_t first, int64_t pixels) const {
    return map.select(0, i).narrow(0, first, pixels).view({pixels * s.batch, s.out_fields});
  }

  template <typename Visit>
  void for_each_block(Visit visit) const {
    for (int64_t first = 0; first < s.pixels(); first += block)
      for (int64_t i = 0; i < s.out_elements; ++i) visit(i, first, std::min(block, s.pixels() - first));
  }

  void contract(const at::Tensor& z, int64_t i, int64_t first, int64_t pixels) const {
    at::parallel_for(first, first + pixels, 1, [&](int64_t begin, int64_t end) {
      cpu::contract(params, x.const_data_ptr(), phi(hidden, i), z.mutable_data_ptr(), first, begin, end);
    });
  }
};

}  // namespace

at::Tensor contract_fprop_cpu(const at::Tensor& x, const at::Tensor& hidden, const at::Tensor& weight, int64_t stride,
                              int64_t padding) {
  const Contraction s = checked(x, hidden, weight, stride, padding);
  if (s.batch == 0) return at::zeros({0, s.out_fields, s.out_elements, s.out_rows, s.out_columns}, x.options());
  const Operands operands(x, hidden, weight, s);
  at::Tensor y = at::empty({s.out_elements, s.pixels(), s.batch, s.out_fields}, operands.options);
  const at::Tensor z = at::empty({operands.block * s.batch, s.numbers()}, operands.options);
  operands.for_each_block([&](int64_t i, int64_t first, int64_t pixels) {
    operands.contract(z, i, first, pixels);
    at::Tensor rows = operands.rows_of(y, i, first, pixels);
    at::mm_out(rows, z.narrow(0, 0, pixels * s.batch), operands.weight);
  });
  return pixels_last(y.permute({1, 2, 3, 0}).to(x.scalar_type()), s.out_rows, s.out_columns);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> contract_backward_cpu(const at::Tensor& dy, const at::Tensor& x,
                                                                     const at::Tensor& hidden, const at::Tensor& weight,
                                                                     int64_t stride, int64_t padding,
                                                                     std::array<bool, 3> output_mask) {
  const Contraction s = checked(x, hidden, weight, stride, padding);
  check_like(dy, "dy", x, "x");
  check_shape(dy, "dy", {s.batch, s.out_fields, s.out_elements, s.out_rows, s.out_columns});
  const auto [need_x, need_hidden, need_weight] = output_mask;
  if (s.batch == 0) {
    const auto zeros = [&](bool needed, const at::Tensor& like) { return at::zeros(needed ? like.sizes() : at::IntArrayRef{0}, x.options()); };
    return {zeros(need_x, x), zeros(need_hidden, hidden), zeros(need_weight, weight)};
  }
  const Operands operands(x, hidden, weight, s);
  const cpu::ContractParams& params = operands.params;
  const at::Tensor rows = pixels_first(dy).to(operands.options).permute({3, 0, 1, 2}).contiguous();
  const at::Tensor transposed = operands.weight.t().contiguous();
  const at::Tensor z = buffer({operands.block * s.batch, s.numbers()}, operands.options);  // or dz

  at::Tensor dx = need_x ? at::zeros_like(operands.x) : at::Tensor();
  at::Tensor dhidden = need_hidden ? at::empty_like(operands.hidden) : at::Tensor();
  at::Tensor dweight = need_weight ? at::zeros({s.out_fields, s.numbers()}, operands.options) : at::Tensor();
  operands.for_each_block([&](int64_t i, int64_t first, int64_t pixels) {
    const at::Tensor dy_block = operands.rows_of(rows, i, first, pixels);
    at::Tensor z_block = z.narrow(0, 0, pixels * s.batch);
    if (need_weight) {
      operands.contract(z, i, first, pixels);
      at::addmm_out(dweight, dweight, dy_block.t(), z_block);
    }
    if (need_x || need_hidden) at::mm_out(z_block, dy_block, transposed);
    if (need_hidden)
      at::parallel_for(first, first + pixels, 1, [&](int64_t begin, int64_t end) {
        cpu::contract_hgrad(params, operands.x.const_data_ptr(), z.const_data_ptr(), operands.phi(dhidden, i), first, begin, end);
      });
    if (need_x)
      at::parallel_for(0, s.batch, 1, [&](int64_t image, int64_t image_end) {
        cpu::contract_dgrad(params, operands.phi(operands.hidden, i), z.const_data_ptr(), dx.mutable_data_ptr(), first,
                            first + pixels, image, image_end);
      });
  });

  const auto none = [&] { return at::empty({0}, x.options()); };
  const auto done = [&](const at::Tensor& grad) { return grad.to(x.scalar_type()).contiguous(); };
  return {need_x ? pixels_last(operands.inside(dx).to(x.scalar_type()).permute({0, 1, 3, 4, 2}).flatten(0, 1), s.rows, s.columns) : none(), need_hidden ? done(dhidden) : none(),
          need_weight ? done(dweight.view({s.out_fields, s.hidden, s.fields}).transpose(1, 2)) : none()};
}

}  // namespace gconv
