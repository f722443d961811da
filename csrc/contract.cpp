// The contraction behind soft translation as ops: checks, allocation, memory formats, threads, and the products with
// the last weight matrix. The sums over taps are in cpu/contract.
//
// Output sites (pixel, element) are taken in blocks that stay in the second-level cache, in one of two orders. Few
// images: hidden features meet the input first, z [sites, B, D, C], whole D times the size of x. Many images share
// the filters, and it takes fewer multiplications to render those of the block, [sites, M k², C, O].
#include "contract.h"

#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
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

constexpr int64_t kBlockBytes = 1 << 19;  // for each thread: a part of its second-level cache

struct Contraction {
  int64_t batch, fields, in_elements, rows, columns, out_rows, out_columns, out_elements, size, hidden, out_fields,
      stride, padding;

  int64_t terms() const { return in_elements * size * size; }
  int64_t sites() const { return out_rows * out_columns * out_elements; }
};

Contraction checked(const at::Tensor& x, const at::Tensor& hidden, const at::Tensor& weight, int64_t stride,
                    int64_t padding) {
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
                    "x, hidden and weight must have at least one field, element, tap and hidden feature, got shapes ",
                    x.sizes(), ", ", hidden.sizes(), " and ", weight.sizes());
  const int64_t spare_rows = s.rows + 2 * padding - s.size, spare_columns = s.columns + 2 * padding - s.size;
  TORCH_CHECK_VALUE(spare_rows >= 0 && spare_columns >= 0, "x with padding ", padding, " must have at least ", s.size,
                    " rows and columns, got shape ", x.sizes());
  s.out_rows = spare_rows / stride + 1, s.out_columns = spare_columns / stride + 1;
  check_shape(hidden, "hidden", {s.out_rows, s.out_columns, s.out_elements, s.in_elements, s.size * s.size, s.hidden});
  return s;
}

// A tensor whose vectors may be read beyond its end.
at::Tensor with_slack(at::IntArrayRef sizes, const at::TensorOptions& options) {
  const int64_t slack = cpu::kContractSlackBytes / options.dtype().itemsize(), numbers = c10::multiply_integers(sizes);
  return at::empty({numbers + slack}, options).narrow(0, 0, numbers).view(sizes);
}

// A map [B, C, M, H, W] as [pixels, B, C, M], and back. Through a matrix, which PyTorch transposes faster than it
// permutes.
at::Tensor pixels_first(const at::Tensor& map) {
  const at::Tensor matrix = map.contiguous().view({map.size(0) * map.size(1) * map.size(2), map.size(3) * map.size(4)});
  return matrix.t().contiguous().view({matrix.size(1), map.size(0), map.size(1), map.size(2)});
}
at::Tensor pixels_last(const at::Tensor& pixels, int64_t rows, int64_t columns) {
  const at::Tensor matrix = pixels.contiguous().view({pixels.size(0), pixels.numel() / pixels.size(0)});
  return matrix.t().contiguous().view({pixels.size(1), pixels.size(2), pixels.size(3), rows, columns});
}

// What the passes share: the operands in the order and the type that sums are formed in, and the blocks of sites.
struct Operands {
  Contraction s;
  at::TensorOptions options;
  at::Tensor x, hidden, weight;  // [rows, columns, M, B, C] with padding, [Q M k², D], [O, C, D]
  std::vector<int64_t> offsets;
  cpu::ContractParams params;
  bool filters_first;
  // A block is a matrix of z or dz [sites B, D C], or of filters [sites M k², C O] or [sites M k², O C].
  int64_t sites, site_rows, block_columns;
  // Parts of the output rows, of k rows or more: parts that are not neighbours share no number of dx.
  int64_t parts;

  Operands(const at::Tensor& x_, const at::Tensor& hidden_, const at::Tensor& weight_, const Contraction& shape)
      : s(shape), options(x_.options().dtype(x_.scalar_type() == at::kDouble ? at::kDouble : at::kFloat)) {
    x = with_slack({s.rows + 2 * s.padding, s.columns + 2 * s.padding, s.in_elements, s.batch, s.fields}, options);
    if (s.padding) x.zero_();
    inside(x).copy_(pixels_first(x_).permute({0, 3, 1, 2}).unflatten(0, {s.rows, s.columns}));
    hidden = hidden_.to(options).contiguous().view({-1, s.hidden});
    weight = weight_.to(options).contiguous();
    for (int64_t m = 0; m < s.in_elements; ++m)
      for (int64_t t = 0; t < s.size * s.size; ++t)
        offsets.push_back(t / s.size * x.stride(0) + t % s.size * x.stride(1) + m * x.stride(2));
    params.type = scalar_type(x, "x");
    params.batch = s.batch, params.in_fields = s.fields, params.out_fields = s.out_fields;
    params.hidden = s.hidden, params.terms = s.terms();
    params.out_elements = s.out_elements, params.columns = s.out_columns;
    params.row_step = s.stride * x.stride(0), params.column_step = s.stride * x.stride(1);
    params.term_offsets = offsets.data();

    // Multiplications of a site and input field in the two orders.
    filters_first = s.terms() * s.out_fields * (s.hidden + s.batch) < s.batch * s.hidden * (s.terms() + s.out_fields);
    site_rows = filters_first ? s.terms() : s.batch;
    block_columns = filters_first ? s.fields * s.out_fields : s.hidden * s.fields;
    sites = std::max<int64_t>(1, kBlockBytes / (site_rows * block_columns * x.element_size()));
    const int64_t threads = at::in_parallel_region() ? 1 : at::get_num_threads();
    parts = threads == 1 ? 1 : std::clamp<int64_t>(s.out_rows / s.size, 1, 2 * threads);
  }

  at::Tensor inside(const at::Tensor& padded) const {
    return padded.narrow(0, s.padding, s.rows).narrow(1, s.padding, s.columns);
  }

  // visit(part, the block's sites, its matrix, a function that takes its rows of a matrix with as many for each
  // site), block by block; parts that are neighbours never at the same time, since they share numbers of dx.
  template <typename Visit>
  void for_each_block(Visit visit) const {
    const int64_t row = s.out_columns * s.out_elements;
    for (int64_t parity = 0; parity < std::min<int64_t>(2, parts); ++parity)
      at::parallel_for(0, (parts + 1 - parity) / 2, 1, [&](int64_t begin, int64_t end) {
        const at::AutoDispatchBelowADInplaceOrView below_autograd;  // as the calling thread is
        const at::Tensor buffer = with_slack({sites * site_rows, block_columns}, options);
        for (int64_t part = 2 * begin + parity; part < 2 * end; part += 2) {
          const int64_t last = s.out_rows * (part + 1) / parts * row;
          for (int64_t first = s.out_rows * part / parts * row; first < last; first += sites) {
            const int64_t count = std::min(sites, last - first);
            visit(part, cpu::Sites{first, first + count}, buffer.narrow(0, 0, count * site_rows),
                  [=](const at::Tensor& matrix, int64_t rows) { return matrix.narrow(0, first * rows, count * rows); });
          }
        }
      });
  }
};

void add_product(at::Tensor sum, const at::Tensor& a, const at::Tensor& b) { at::addmm_out(sum, sum, a, b); }

}  // namespace

at::Tensor contract_fprop_cpu(const at::Tensor& x_, const at::Tensor& hidden, const at::Tensor& weight, int64_t stride,
                              int64_t padding) {
  const Contraction s = checked(x_, hidden, weight, stride, padding);
  if (s.batch == 0) return at::zeros({0, s.out_fields, s.out_elements, s.out_rows, s.out_columns}, x_.options());
  Operands o(x_, hidden, weight, s);
  const void* x = o.x.const_data_ptr();
  at::Tensor y = at::empty({s.sites() * s.batch, s.out_fields}, o.options);
  if (o.filters_first) {
    const at::Tensor matrix = o.weight.permute({2, 1, 0}).reshape({s.hidden, s.fields * s.out_fields});
    o.for_each_block([&](int64_t, cpu::Sites sites, at::Tensor filters, auto rows_of) {
      at::mm_out(filters, rows_of(o.hidden, s.terms()), matrix);
      cpu::apply_filters(o.params, x, filters.const_data_ptr(), y.mutable_data_ptr(), sites);
    });
  } else {
    const at::Tensor matrix = o.weight.permute({2, 1, 0}).reshape({s.hidden * s.fields, s.out_fields});
    o.for_each_block([&](int64_t, cpu::Sites sites, at::Tensor z, auto rows_of) {
      cpu::contract(o.params, x, o.hidden.const_data_ptr(), z.mutable_data_ptr(), sites);
      at::Tensor rows = rows_of(y, s.batch);
      at::mm_out(rows, z, matrix);
    });
  }
  o.x.reset();  // here and below: what is not needed any more makes room for the copies that follow
  y = y.to(x_.scalar_type()).view({s.out_rows * s.out_columns, s.out_elements, s.batch, s.out_fields});
  return pixels_last(y.permute({0, 2, 3, 1}), s.out_rows, s.out_columns);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> contract_backward_cpu(const at::Tensor& dy_, const at::Tensor& x_,
                                                                     const at::Tensor& hidden, const at::Tensor& weight,
                                                                     int64_t stride, int64_t padding,
                                                                     std::array<bool, 3> output_mask) {
  const Contraction s = checked(x_, hidden, weight, stride, padding);
  check_like(dy_, "dy", x_, "x");
  check_shape(dy_, "dy", {s.batch, s.out_fields, s.out_elements, s.out_rows, s.out_columns});
  const auto [need_x, need_hidden, need_weight] = output_mask;
  if (s.batch == 0) {
    const auto zeros = [&](bool needed, const at::Tensor& like) {
      return at::zeros(needed ? like.sizes() : at::IntArrayRef{0}, x_.options());
    };
    return {zeros(need_x, x_), zeros(need_hidden, hidden), zeros(need_weight, weight)};
  }
  Operands o(x_, hidden, weight, s);
  at::Tensor dy_rows =
      pixels_first(dy_).to(o.options).permute({0, 3, 1, 2}).reshape({s.sites() * s.batch, s.out_fields});
  const void *x = o.x.const_data_ptr(), *dy = dy_rows.const_data_ptr(), *phi = o.hidden.const_data_ptr();
  at::Tensor dx, dhidden = need_hidden ? at::empty_like(o.hidden) : at::Tensor(), dweight;
  if (o.filters_first) {
    const at::Tensor to_hidden = o.weight.view({s.out_fields * s.fields, s.hidden}),
                     matrix = to_hidden.t().contiguous();
    if (need_weight) dweight = at::zeros({o.parts, s.out_fields * s.fields, s.hidden}, o.options);
    if (need_hidden || need_weight)
      o.for_each_block([&](int64_t part, cpu::Sites sites, at::Tensor dfilters, auto rows_of) {
        cpu::apply_kgrad(o.params, x, dy, dfilters.mutable_data_ptr(), sites);
        if (need_hidden) {
          at::Tensor rows = rows_of(dhidden, s.terms());
          at::mm_out(rows, dfilters, to_hidden);
        }
        if (need_weight) add_product(dweight[part], dfilters.t(), rows_of(o.hidden, s.terms()));
      });
    if (need_x) {
      const auto sizes = o.x.sizes().vec();
      o.x.reset();
      dx = at::zeros(sizes, o.options);
      o.for_each_block([&](int64_t, cpu::Sites sites, at::Tensor filters, auto rows_of) {
        at::mm_out(filters, rows_of(o.hidden, s.terms()), matrix);
        cpu::apply_dgrad(o.params, filters.const_data_ptr(), dy, dx.mutable_data_ptr(), sites);
      });
    }
    if (need_weight) dweight = dweight.sum(0).view({s.out_fields, s.fields, s.hidden});
  } else {
    const at::Tensor matrix = o.weight.transpose(1, 2).reshape({s.out_fields, s.hidden * s.fields});
    if (need_weight) dweight = at::zeros({o.parts, s.out_fields, s.hidden * s.fields}, o.options);
    if (need_x) dx = at::zeros_like(o.x);
    o.for_each_block([&](int64_t part, cpu::Sites sites, at::Tensor z, auto rows_of) {
      const at::Tensor dy_of_block = rows_of(dy_rows, s.batch);
      if (need_weight) {
        cpu::contract(o.params, x, phi, z.mutable_data_ptr(), sites);
        add_product(dweight[part], dy_of_block.t(), z);
      }
      if (!need_x && !need_hidden) return;
      at::mm_out(z, dy_of_block, matrix);  // dz
      if (need_hidden) cpu::contract_hgrad(o.params, x, z.const_data_ptr(), dhidden.mutable_data_ptr(), sites);
      if (need_x) cpu::contract_dgrad(o.params, phi, z.const_data_ptr(), dx.mutable_data_ptr(), sites);
    });
    if (need_weight) dweight = dweight.sum(0).view({s.out_fields, s.hidden, s.fields}).transpose(1, 2);
  }

  const auto none = [&] { return at::empty({0}, x_.options()); };
  const auto done = [&](const at::Tensor& grad) { return grad.to(x_.scalar_type()).contiguous(); };
  o.x.reset(), dy_rows.reset();
  if (need_x) dx = o.inside(dx).to(x_.scalar_type()).permute({0, 1, 3, 4, 2}).flatten(0, 1);
  return {need_x ? pixels_last(dx, s.rows, s.columns) : none(),
          need_hidden ? done(dhidden.view(hidden.sizes())) : none(), need_weight ? done(dweight) : none()};
}

}  // namespace gconv
