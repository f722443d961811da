// The contraction behind soft translation as ops: checks, allocation, memory formats, threads, and the products with
// the last weight matrix. The sums over taps are in cpu/contract.
//
// Output rows are divided into parts, and those into blocks of sites (pixel, element) that stay in the second-level
// cache, in one of two orders. Few images: hidden features meet the input first, z [sites, B, D, C], whole D times the
// size of x. Many images share the filters, and it takes fewer multiplications to render those of the block, [sites,
// M k², C, O].
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

constexpr int64_t kBlockBytes = 1 << 18;  // for each thread: a part of its second-level cache
constexpr int64_t kPartRows = 4, kMostParts = 16;

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

// Some output rows, the work of one thread at a time.
struct Part {
  int64_t index, first_row, rows, sites;

  // Of a matrix with so many rows for each site, those of all sites of the part.
  at::Tensor of(const at::Tensor& matrix, int64_t site_rows) const {
    return matrix.narrow(0, first_row * (sites / rows) * site_rows, sites * site_rows);
  }
};

// Rows of a part's matrix that belong to a block of its sites.
at::Tensor rows_of(const at::Tensor& matrix, cpu::Sites sites, int64_t site_rows) {
  return matrix.narrow(0, sites.begin * site_rows, (sites.end - sites.begin) * site_rows);
}

// What the passes share: the operands in the type that sums are formed in, and the order of the work.
struct Operands {
  Contraction s;
  at::TensorOptions options;
  at::Tensor x, hidden, weight;  // [B, C, M, H, W], [Q M k², D], [O, C, D]
  cpu::ContractMap in_map, out_map;
  std::vector<int64_t> offsets;
  cpu::ContractParams params;
  bool filters_first;
  // A block is a matrix of z or dz [sites B, D C], or of filters [sites M k², C O] or [sites M k², O C].
  int64_t block_sites, site_rows, block_columns;
  int64_t parts;

  Operands(const at::Tensor& x_, const at::Tensor& hidden_, const at::Tensor& weight_, const Contraction& shape)
      : s(shape), options(x_.options().dtype(x_.scalar_type() == at::kDouble ? at::kDouble : at::kFloat)) {
    x = x_.to(options).contiguous();
    hidden = hidden_.to(options).contiguous().view({-1, s.hidden});
    weight = weight_.to(options).contiguous();
    const int64_t columns = s.columns + 2 * s.padding, image = s.batch * s.fields;
    for (int64_t m = 0; m < s.in_elements; ++m)
      for (int64_t t = 0; t < s.size * s.size; ++t)
        offsets.push_back(((t / s.size * columns + t % s.size) * s.in_elements + m) * image);
    params.type = scalar_type(x, "x");
    in_map = {params.type, s.batch, s.fields, s.in_elements, s.rows, s.columns};
    out_map = {params.type, s.batch, s.out_fields, s.out_elements, s.out_rows, s.out_columns};
    params.batch = s.batch, params.in_fields = s.fields, params.out_fields = s.out_fields;
    params.hidden = s.hidden, params.terms = s.terms();
    params.out_elements = s.out_elements, params.columns = s.out_columns;
    params.column_step = s.stride * s.in_elements * image;
    params.row_step = columns * params.column_step;
    params.term_offsets = offsets.data();

    // Multiplications of a site and input field in the two orders.
    filters_first = s.terms() * s.out_fields * (s.hidden + s.batch) < s.batch * s.hidden * (s.terms() + s.out_fields);
    site_rows = filters_first ? s.terms() : s.batch;
    block_columns = filters_first ? s.fields * s.out_fields : s.hidden * s.fields;
    block_sites = std::max<int64_t>(1, kBlockBytes / (site_rows * block_columns * x.element_size()));
    // With as many rows as the filter has, parts that are not neighbours share no number of dx. Not too many: each sums
    // a gradient to the weight of its own.
    parts = std::clamp<int64_t>(s.out_rows / std::max(s.size, kPartRows), 1, kMostParts);
  }

  // visit(part) in parallel; with `apart`, parts that are neighbours never at the same time.
  template <typename Visit>
  void for_each_part(bool apart, Visit visit) const {
    const int64_t phases = apart ? 2 : 1;
    for (int64_t phase = 0; phase < std::min(phases, parts); ++phase)
      at::parallel_for(0, (parts + phases - 1 - phase) / phases, 1, [&](int64_t begin, int64_t end) {
        const at::AutoDispatchBelowADInplaceOrView below_autograd;  // as the calling thread is
        for (int64_t index = phases * begin + phase; index < phases * end; index += phases) {
          const int64_t first = s.out_rows * index / parts, rows = s.out_rows * (index + 1) / parts - first;
          visit(Part{index, first, rows, rows * s.out_columns * s.out_elements});
        }
      });
  }

  // visit(sites, counted from the part's first, a matrix to work in)
  template <typename Visit>
  void for_each_block(const Part& part, Visit visit) const {
    const int64_t most = std::min(block_sites, part.sites);
    const at::Tensor matrix = with_slack({most * site_rows, block_columns}, options);
    for (int64_t first = 0; first < part.sites; first += most) {
      const int64_t count = std::min(most, part.sites - first);
      visit(cpu::Sites{first, first + count}, matrix.narrow(0, 0, count * site_rows));
    }
  }

  cpu::MapRows input_rows(const Part& part) const {
    return {part.first_row * s.stride, (part.rows - 1) * s.stride + s.size, s.padding};
  }
  // Memory for the pixels of the input that a part reads.
  at::Tensor input_pixels(const Part& part) const {
    return with_slack({input_rows(part).count, s.columns + 2 * s.padding, s.in_elements, s.batch, s.fields}, options);
  }
  at::Tensor x_of(const Part& part) const {
    at::Tensor pixels = input_pixels(part);
    cpu::pixels_of_map(in_map, x.const_data_ptr(), pixels.mutable_data_ptr(), input_rows(part));
    return pixels;
  }
  // Memory for the results of a part, and where they belong.
  at::Tensor output_pixels(const Part& part) const { return with_slack({part.sites * s.batch, s.out_fields}, options); }
  static cpu::MapRows output_rows(const Part& part) { return {part.first_row, part.rows, 0}; }
};

void add_product(at::Tensor sum, const at::Tensor& a, const at::Tensor& b) { at::addmm_out(sum, sum, a, b); }

}  // namespace

at::Tensor contract_fprop_cpu(const at::Tensor& x_, const at::Tensor& hidden, const at::Tensor& weight, int64_t stride,
                              int64_t padding) {
  const Contraction s = checked(x_, hidden, weight, stride, padding);
  if (s.batch == 0) return at::zeros({0, s.out_fields, s.out_elements, s.out_rows, s.out_columns}, x_.options());
  const Operands o(x_, hidden, weight, s);
  at::Tensor y = at::empty({s.batch, s.out_fields, s.out_elements, s.out_rows, s.out_columns}, o.options);
  const at::Tensor matrix = o.filters_first ? o.weight.permute({2, 1, 0}).reshape({s.hidden, s.fields * s.out_fields})
                                            : o.weight.permute({2, 1, 0}).reshape({s.hidden * s.fields, s.out_fields});
  o.for_each_part(false, [&](const Part& part) {
    const at::Tensor x = o.x_of(part), phi = part.of(o.hidden, s.terms());
    at::Tensor pixels = o.output_pixels(part);
    o.for_each_block(part, [&](cpu::Sites sites, at::Tensor block) {
      if (o.filters_first) {
        at::mm_out(block, rows_of(phi, sites, s.terms()), matrix);
        cpu::apply_filters(o.params, x.const_data_ptr(), block.const_data_ptr(), pixels.mutable_data_ptr(), sites);
      } else {
        cpu::contract(o.params, x.const_data_ptr(), phi.const_data_ptr(), block.mutable_data_ptr(), sites);
        at::Tensor rows = rows_of(pixels, sites, s.batch);
        at::mm_out(rows, block, matrix);
      }
    });
    cpu::pixels_to_map(o.out_map, pixels.const_data_ptr(), y.mutable_data_ptr(), o.output_rows(part), false);
  });
  return y.to(x_.scalar_type());
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
  const Operands o(x_, hidden, weight, s);
  const at::Tensor dy = dy_.to(o.options).contiguous();
  at::Tensor dx, dhidden, dweight;
  if (need_x) dx = at::zeros_like(o.x);
  if (need_hidden) dhidden = at::empty_like(o.hidden);
  if (need_weight) dweight = at::zeros({o.parts, s.out_fields, s.fields * s.hidden}, o.options);
  const at::Tensor to_hidden = o.weight.view({s.out_fields * s.fields, s.hidden}),
                   to_filters = to_hidden.t().contiguous(),
                   to_z = o.weight.transpose(1, 2).reshape({s.out_fields, s.hidden * s.fields});
  o.for_each_part(need_x, [&](const Part& part) {
    const at::Tensor phi = part.of(o.hidden, s.terms());
    at::Tensor dphi = need_hidden ? part.of(dhidden, s.terms()) : at::Tensor();
    at::Tensor dy_pixels = o.output_pixels(part), dx_pixels;
    cpu::pixels_of_map(o.out_map, dy.const_data_ptr(), dy_pixels.mutable_data_ptr(), o.output_rows(part));
    const at::Tensor x_pixels = need_hidden || need_weight ? o.x_of(part) : at::Tensor();
    if (need_x) dx_pixels = o.input_pixels(part).zero_();
    o.for_each_block(part, [&](cpu::Sites sites, at::Tensor block) {
      const void* x = x_pixels.defined() ? x_pixels.const_data_ptr() : nullptr;
      if (o.filters_first) {
        if (x) cpu::apply_kgrad(o.params, x, dy_pixels.const_data_ptr(), block.mutable_data_ptr(), sites);
        if (need_hidden) {
          at::Tensor rows = rows_of(dphi, sites, s.terms());
          at::mm_out(rows, block, to_hidden);
        }
        if (need_weight) add_product(dweight[part.index].view_as(to_hidden), block.t(), rows_of(phi, sites, s.terms()));
        if (need_x) {
          at::mm_out(block, rows_of(phi, sites, s.terms()), to_filters);
          cpu::apply_dgrad(o.params, block.const_data_ptr(), dy_pixels.const_data_ptr(), dx_pixels.mutable_data_ptr(),
                           sites);
        }
        return;
      }
      const at::Tensor dy_of_block = rows_of(dy_pixels, sites, s.batch);
      if (need_weight) {
        cpu::contract(o.params, x, phi.const_data_ptr(), block.mutable_data_ptr(), sites);
        add_product(dweight[part.index], dy_of_block.t(), block);
      }
      if (!need_x && !need_hidden) return;
      at::mm_out(block, dy_of_block, to_z);  // dz
      if (need_hidden) cpu::contract_hgrad(o.params, x, block.const_data_ptr(), dphi.mutable_data_ptr(), sites);
      if (need_x)
        cpu::contract_dgrad(o.params, phi.const_data_ptr(), block.const_data_ptr(), dx_pixels.mutable_data_ptr(),
                            sites);
    });
    if (need_x)
      cpu::pixels_to_map(o.in_map, dx_pixels.const_data_ptr(), dx.mutable_data_ptr(), o.input_rows(part), true);
  });
  if (need_weight)
    dweight = o.filters_first ? dweight.sum(0).view({s.out_fields, s.fields, s.hidden})
                              : dweight.sum(0).view({s.out_fields, s.hidden, s.fields}).transpose(1, 2);

  const auto none = [&] { return at::empty({0}, x_.options()); };
  const auto done = [&](const at::Tensor& grad) { return grad.to(x_.scalar_type()).contiguous(); };
  return {need_x ? done(dx) : none(), need_hidden ? done(dhidden.view(hidden.sizes())) : none(),
          need_weight ? done(dweight) : none()};
}

}  // namespace gconv
