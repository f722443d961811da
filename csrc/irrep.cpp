// The irrep algorithm as ops: checks, allocation, memory formats, threads. The arithmetic is in cpu/irrep*.
#include "irrep.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/threshold_backward.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "checks.h"
#include "cpu/irrep.h"

namespace gconv {
namespace {

MapStrides map_strides(const at::Tensor& map) {
  const int64_t dim = map.dim();
  return {map.stride(0), map.stride(1), dim == 5 ? map.stride(2) : 0, map.stride(dim - 2), map.stride(dim - 1)};
}

// Whether a map lies as rows of pixels, not as pixels of numbers. One field alone has the strides of either; PyTorch lets
// those of channels_last mean it.
bool lies_in_rows(const at::Tensor& map) {
  const int64_t field = map.stride(1), column = map.stride(-1);
  return field == 0 || field > column || (field == column && (map.size(1) > 1 || map.size(-1) * map.size(-2) == 1));
}

// A new map [B, C, |P|, H, W] in the memory format of `like`: rows of pixels, or pixels of numbers (fields and elements in
// the order in which `like` has them).
at::Tensor empty_map_like(const at::Tensor& like, int64_t fields, int64_t elements, int64_t height, int64_t width) {
  const int64_t batch = like.size(0);
  const int64_t sizes[] = {batch, fields, elements, height, width};
  if (lies_in_rows(like)) return at::empty(sizes, like.options());
  if (like.dim() == 5 && like.stride(2) > like.stride(-1)) {  // channels_last_3d: B, |P|, H, W, C
    const int64_t strides[] = {elements * height * width * fields, 1, height * width * fields, width * fields, fields};
    return at::empty_strided(sizes, strides, like.options());
  }
  const int64_t planes = fields * elements;  // B, H, W, C, |P|
  const int64_t strides[] = {height * width * planes, elements, 1, width * planes, planes};
  return at::empty_strided(sizes, strides, like.options());
}

struct Geometry {
  at::IntArrayRef stride, padding, dilation;

  void check() const {
    check_pair(stride, "stride", 1);
    check_pair(padding, "padding", 0);
    check_pair(dilation, "dilation", 1);
  }
  Axis axis(int i, int64_t in, int64_t taps) const {
    Axis axis;
    axis.in = in;
    axis.stride = stride[i];
    axis.padding = padding[i];
    axis.dilation = dilation[i];
    axis.out = (in + 2 * padding[i] - dilation[i] * (taps - 1) - 1) / stride[i] + 1;
    TORCH_CHECK_VALUE(in + 2 * padding[i] > dilation[i] * (taps - 1), "x is too small: size ", in, " with padding ", padding[i],
                      ", for a kernel of ", taps, " taps with dilation ", dilation[i]);
    if (axis.out == 1) axis.stride = 1;  // nothing is strided over, and a huge stride would split the plane as often
    return axis;
  }
};

void check_taps(int64_t size) {
  TORCH_CHECK_VALUE(1 <= size && size <= 1024, "the kernel must have 1 to 1024 taps a side, got ", size);
}

// Shape of a convolution of x [B, groups · C_in, (|P|,) H, W] with C_out fields of output in each of the groups.
ConvShape conv_shape(const at::Tensor& x, std::string_view group, int64_t out_fields, int64_t kernel_size,
                     const Geometry& geometry, int64_t groups) {
  ConvShape shape;
  shape.group = checked_group(group);
  TORCH_CHECK_VALUE(x.dim() == 4 || x.dim() == 5, "x must have 4 (image) or 5 (feature map) dimensions, got shape ", x.sizes());
  shape.lifting = x.dim() == 4;
  TORCH_CHECK_VALUE(shape.lifting || x.size(2) == shape.order(), "x must have ", shape.order(), " elements of ", std::string(group),
                    " in dimension 2, got shape ", x.sizes());
  TORCH_CHECK_VALUE(groups >= 1 && x.size(1) % groups == 0 && out_fields % groups == 0, "groups must divide the fields of x, ",
                    x.size(1), ", and of the result, ", out_fields, ", got ", groups);
  TORCH_CHECK_VALUE(x.size(1) > 0 && out_fields > 0, "x and the result must have at least one field, got ", x.size(1), " and ", out_fields);
  check_taps(kernel_size);
  geometry.check();
  shape.batch = x.size(0);
  shape.groups = groups;
  shape.in_fields = x.size(1) / groups;
  shape.out_fields = out_fields / groups;
  shape.size = static_cast<int>(kernel_size);
  shape.rows = geometry.axis(0, x.size(-2), kernel_size);
  shape.columns = geometry.axis(1, x.size(-1), kernel_size);
  return shape;
}

std::vector<int64_t> weight_sizes(const ConvShape& shape, int64_t banks) {
  std::vector<int64_t> sizes{shape.groups * shape.out_fields, shape.in_fields};
  if (banks) sizes.insert(sizes.begin(), banks);
  if (!shape.lifting) sizes.push_back(shape.order());
  sizes.insert(sizes.end(), {shape.size, shape.size});
  return sizes;
}

// L, or 0 of a strict convolution.
int64_t checked_banks(const std::optional<at::Tensor>& relaxed_weight, std::string_view group, bool lifting, bool relax_input,
                      const at::Tensor& like, const char* like_name) {
  if (!relaxed_weight) return 0;
  TORCH_CHECK_VALUE(!(lifting && relax_input), "relax_on='input' needs a group axis on the input; a lifting convolution has none");
  TORCH_CHECK_VALUE(relaxed_weight->dim() == 2 && relaxed_weight->size(0) > 0, "relaxed_weight must be [L, |P|] with L at least 1, got shape ",
                    relaxed_weight->sizes());
  check_shape(*relaxed_weight, "relaxed_weight", {relaxed_weight->size(0), checked_group(group)->order});
  check_like(*relaxed_weight, "relaxed_weight", like, like_name);
  return relaxed_weight->size(0);
}

void check_weight_dim(const at::Tensor& weight, int64_t bank_axis) {
  TORCH_CHECK_VALUE(weight.dim() == 4 + bank_axis || weight.dim() == 5 + bank_axis, "weight must have ", 4 + bank_axis, " (lifting) or ",
                    5 + bank_axis, " (group convolution) dimensions", bank_axis ? " with a relaxed_weight" : "", ", got shape ", weight.sizes());
}

// Numbers of the transformed weight for one (bank, output field, input field).
int64_t steps_numbers(const ConvShape& shape) { return static_cast<int64_t>(orbits(shape).size()) * shape.order(); }

// The gradient, and what masks it while it is read; masked at once where the two lie differently in memory.
std::pair<at::Tensor, const void*> masked_gradient(const at::Tensor& dy, const std::optional<at::Tensor>& activated) {
  if (!activated) return {dy, nullptr};
  check_shape(*activated, "activated", dy.sizes());
  check_like(*activated, "activated", dy, "dy");
  if (activated->strides() == dy.strides()) return {dy, activated->const_data_ptr()};
  return {at::threshold_backward(dy, *activated, 0), nullptr};
}

at::ScalarType sums_type(const at::Tensor& map) { return map.scalar_type() == at::kDouble ? at::kDouble : at::kFloat; }

void run_fprop(const cpu::IrrepFpropParams& params) {
  const ConvShape& s = params.shape;
  const int64_t images = s.batch * s.groups;
  if (images == 0) return;
  const auto plan = cpu::plan_irrep_fprop(params);
  const int64_t threads = at::in_parallel_region() ? 1 : at::get_num_threads();
  // Images are cut only where there are fewer of them than threads: every part pads its image anew.
  const int64_t parts = std::max<int64_t>(1, (threads + images - 1) / images);
  at::parallel_for(0, images * parts, 1, [&](int64_t begin, int64_t end) { plan->run(begin, end, parts); });
}

}  // namespace

at::Tensor irrep_fprop_cpu(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& relaxed_weight,
                           const std::optional<at::Tensor>& bias, const std::optional<at::Tensor>& transformed_weight,
                           std::string_view group, std::string_view relax_on, at::IntArrayRef stride, at::IntArrayRef padding,
                           at::IntArrayRef dilation, int64_t groups, bool relu) {
  const int64_t bank_axis = relaxed_weight ? 1 : 0;
  check_weight_dim(weight, bank_axis);
  const int64_t out_fields = weight.size(bank_axis);
  cpu::IrrepFpropParams params;
  params.type = scalar_type(x, "x");
  params.shape = conv_shape(x, group, out_fields, weight.size(-1), {stride, padding, dilation}, groups);
  params.relax_input = relaxes_input(relax_on) && relaxed_weight;
  const ConvShape& s = params.shape;
  const int64_t banks = checked_banks(relaxed_weight, group, s.lifting, params.relax_input, x, "x");
  params.banks = std::max<int64_t>(1, banks);
  check_shape(weight, "weight", weight_sizes(s, banks));
  check_like(weight, "weight", x, "x");
  if (bias) {
    check_shape(*bias, "bias", {out_fields});
    check_like(*bias, "bias", x, "x");
  }
  const at::Tensor relaxed_weight_c = relaxed_weight ? relaxed_weight->contiguous() : at::Tensor();
  const at::Tensor weight_c = weight.contiguous(), bias_c = bias ? bias->contiguous() : at::Tensor();
  at::Tensor y = empty_map_like(x, out_fields, s.order(), s.rows.out, s.columns.out);

  params.x = x.const_data_ptr();
  params.x_strides = map_strides(x);
  params.weight = weight_c.const_data_ptr();
  params.relaxed_weight = banks ? relaxed_weight_c.const_data_ptr() : nullptr;
  params.bias = bias ? bias_c.const_data_ptr() : nullptr;
  params.relu = relu;
  params.y = y.mutable_data_ptr();
  params.y_strides = map_strides(y);
  const at::Tensor transformed_c = transformed_weight ? transformed_weight->contiguous() : at::Tensor();
  if (transformed_weight) {
    check_shape(*transformed_weight, "transformed_weight", {weight.numel() / (s.lifting ? s.taps() : s.order() * s.taps()) * steps_numbers(s)});
    TORCH_CHECK_TYPE(transformed_weight->scalar_type() == sums_type(x), "transformed_weight must be ", sums_type(x), ", got ",
                     transformed_weight->scalar_type());
    params.transformed_weight = transformed_c.const_data_ptr();
  }
  run_fprop(params);
  return y;
}

at::Tensor irrep_transform_weight_cpu(const at::Tensor& weight, const std::optional<at::Tensor>& relaxed_weight,
                                      std::string_view group, std::string_view relax_on, int64_t groups) {
  const int64_t bank_axis = relaxed_weight ? 1 : 0;
  check_weight_dim(weight, bank_axis);
  cpu::IrrepFpropParams params;
  params.type = scalar_type(weight, "weight");
  params.relax_input = relaxes_input(relax_on) && relaxed_weight;
  ConvShape& s = params.shape;
  s.group = checked_group(group);
  s.lifting = weight.dim() == 4 + bank_axis;
  const int64_t out_fields = weight.size(bank_axis);
  TORCH_CHECK_VALUE(groups >= 1 && out_fields % groups == 0, "groups must divide the ", out_fields, " output fields, got ", groups);
  check_not_empty(weight);
  check_taps(weight.size(-1));
  s.groups = groups;
  s.in_fields = weight.size(bank_axis + 1);
  s.out_fields = out_fields / groups;
  s.size = static_cast<int>(weight.size(-1));
  s.rows.in = s.columns.in = s.size;
  s.rows.out = s.columns.out = 1;
  const int64_t banks = checked_banks(relaxed_weight, group, s.lifting, params.relax_input, weight, "weight");
  params.banks = std::max<int64_t>(1, banks);
  check_shape(weight, "weight", weight_sizes(s, banks));
  const at::Tensor weight_c = weight.contiguous();
  params.weight = weight_c.const_data_ptr();
  const auto plan = cpu::plan_irrep_fprop(params);
  at::Tensor transformed = at::empty({plan->transformed_numbers()}, weight.options().dtype(sums_type(weight)));
  std::memcpy(transformed.mutable_data_ptr(), plan->transformed_weight(), transformed.nbytes());
  return transformed;
}

// <dy, fprop(x, ψ)> = <dx, x> makes dx an fprop of dy over the same group, with spread = stride, padding' = dilation (k − 1) −
// padding, ψ'[c, o, a, b] = ψ[o, c, a⁻¹, −a⁻¹ b], and relaxed on the other side.
at::Tensor irrep_dgrad_cpu(const at::Tensor& dy_, const at::Tensor& weight, const std::optional<at::Tensor>& relaxed_weight,
                           const std::optional<at::Tensor>& activated, std::string_view group, std::string_view relax_on, at::IntArrayRef input_size, at::IntArrayRef stride,
                           at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups) {
  const int64_t bank_axis = relaxed_weight ? 1 : 0;
  TORCH_CHECK_VALUE(weight.dim() == 5 + bank_axis && weight.size(-1) == weight.size(-2), "weight must be [", bank_axis ? "L, " : "",
                    "C_out, C_in, |P|, k, k], got shape ", weight.sizes());
  const auto [dy, mask] = masked_gradient(dy_, activated);
  TORCH_CHECK_VALUE(dy.dim() == 5, "dy must have 5 dimensions, got shape ", dy.sizes());
  check_pair(input_size, "input_size", 1);
  const int64_t size = weight.size(-1), order = checked_group(group)->order, taps = size * size;
  const int64_t out_fields = weight.size(bank_axis), in_fields = weight.size(bank_axis + 1);  // of the convolution
  TORCH_CHECK_VALUE(groups >= 1 && out_fields % groups == 0, "groups must divide the ", out_fields, " output fields, got ", groups);
  TORCH_CHECK_VALUE(weight.size(-3) == order, "weight must have ", order, " relative elements in dimension ", 2 + bank_axis,
                    ", got shape ", weight.sizes());
  check_not_empty(weight);
  check_taps(size);
  check_like(weight, "weight", dy, "dy");
  const bool relax_input = relaxes_input(relax_on);
  const int64_t banks = checked_banks(relaxed_weight, group, false, relax_input, dy, "dy");
  TORCH_CHECK_VALUE(!banks || weight.size(0) == banks, "relaxed_weight must weigh the ", weight.size(0), " banks of weight, got ", banks);
  const Geometry geometry{stride, padding, dilation};
  geometry.check();

  cpu::IrrepFpropParams params;
  params.type = scalar_type(dy, "dy");
  ConvShape& s = params.shape;
  s.group = checked_group(group);
  s.batch = dy.size(0);
  s.groups = groups;
  s.in_fields = out_fields / groups;
  s.out_fields = in_fields;
  s.size = static_cast<int>(size);
  const Axis forward[] = {geometry.axis(0, input_size[0], size), geometry.axis(1, input_size[1], size)};
  Axis* axes[] = {&s.rows, &s.columns};
  for (int i = 0; i < 2; ++i) {
    axes[i]->in = forward[i].out;
    axes[i]->out = forward[i].in;
    axes[i]->spread = forward[i].stride;
    axes[i]->padding = dilation[i] * (size - 1) - padding[i];
    axes[i]->dilation = dilation[i];
  }
  check_shape(dy, "dy", {dy.size(0), out_fields, order, s.rows.in, s.columns.in});

  // ψ' as bytes of one width: only positions change.
  const at::Tensor weight_c = weight.contiguous();
  const at::Tensor relaxed_weight_c = relaxed_weight ? relaxed_weight->contiguous() : at::Tensor();
  params.banks = std::max<int64_t>(1, banks);
  at::Tensor reindexed = at::empty({params.banks, groups * s.out_fields, s.in_fields, order, size, size}, weight.options());
  std::vector<int64_t> from(order * taps);
  for (int a = 0; a < order; ++a)
    for (int b = 0; b < taps; ++b) {
      const int inverse = s.group->inverse[a];
      from[a * taps + b] = inverse * taps + taps - 1 - moved_tap(s.group->matrices[inverse], b, s.size);
    }
  const auto reindex = [&](auto number) {
    using Number = decltype(number);
    const Number* old = static_cast<const Number*>(weight_c.const_data_ptr());
    Number* to = static_cast<Number*>(reindexed.mutable_data_ptr());
    const int64_t block = order * taps, fields = groups * s.out_fields;
    at::parallel_for(0, params.banks * fields, 1 + 16384 / (1 + s.in_fields * block), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        for (int64_t o = 0; o < s.in_fields; ++o) {
          const int64_t bank = i / fields, c = i % fields;
          const int64_t in_block = (c / s.out_fields * s.in_fields + o) * s.out_fields + c % s.out_fields;
          const Number* taps_of_bank = old + (bank * out_fields * in_fields + in_block) * block;
          for (int64_t j = 0; j < block; ++j) to[(i * s.in_fields + o) * block + j] = taps_of_bank[from[j]];
        }
    });
  };
  if (weight.element_size() == 8)
    reindex(uint64_t{});
  else if (weight.element_size() == 4)
    reindex(uint32_t{});
  else
    reindex(uint16_t{});

  at::Tensor dx = empty_map_like(dy, groups * s.out_fields, order, s.rows.out, s.columns.out);
  params.x = dy.const_data_ptr();
  params.x_activated = mask;
  params.x_strides = map_strides(dy);
  params.weight = reindexed.const_data_ptr();
  params.relaxed_weight = banks ? relaxed_weight_c.const_data_ptr() : nullptr;
  params.relax_input = banks && !relax_input;
  params.y = dx.mutable_data_ptr();
  params.y_strides = map_strides(dx);
  run_fprop(params);
  return dx;
}

at::Tensor irrep_wgrad_cpu(const at::Tensor& x, const at::Tensor& dy_, const std::optional<at::Tensor>& relaxed_weight,
                           const std::optional<at::Tensor>& activated, std::string_view group, std::string_view relax_on, int64_t kernel_size, at::IntArrayRef stride,
                           at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups) {
  const auto [dy, mask] = masked_gradient(dy_, activated);
  TORCH_CHECK_VALUE(dy.dim() == 5, "dy must have 5 dimensions, got shape ", dy.sizes());
  cpu::IrrepWgradParams params;
  params.type = scalar_type(x, "x");
  params.shape = conv_shape(x, group, dy.size(1), kernel_size, {stride, padding, dilation}, groups);
  const ConvShape& s = params.shape;
  check_shape(dy, "dy", {s.batch, dy.size(1), s.order(), s.rows.out, s.columns.out});
  check_like(dy, "dy", x, "x");
  const bool relax_input = relaxes_input(relax_on);
  const int64_t banks = checked_banks(relaxed_weight, group, s.lifting, relax_input && relaxed_weight, x, "x");
  const at::Tensor relaxed_weight_c = relaxed_weight ? relaxed_weight->contiguous() : at::Tensor();
  at::Tensor grad_weight = at::empty(weight_sizes(s, banks), x.options());

  params.x = x.const_data_ptr();
  params.x_strides = map_strides(x);
  params.dy = dy.const_data_ptr();
  params.dy_activated = mask;
  params.dy_strides = map_strides(dy);
  const int64_t bank_bytes = grad_weight.nbytes() / std::max<int64_t>(1, banks), row_bytes = s.order() * x.element_size();
  for (int64_t bank = 0; bank < std::max<int64_t>(1, banks); ++bank) {
    if (banks) {
      const void* w = static_cast<const char*>(relaxed_weight_c.const_data_ptr()) + bank * row_bytes;
      (relax_input ? params.x_scale : params.dy_scale) = w;
    }
    params.grad_weight = static_cast<char*>(grad_weight.mutable_data_ptr()) + bank * bank_bytes;
    const auto plan = cpu::plan_irrep_wgrad(params);
    at::parallel_for(0, plan->units(), 1, [&](int64_t begin, int64_t end) { plan->run(begin, end); });
    plan->finish();
  }
  return grad_weight;
}

}  // namespace gconv
