// What the irrep ops check of their arguments and make of them, on every device.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/threshold_backward.h>

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "checks.h"
#include "conv_shape.h"

namespace gconv {

inline MapStrides map_strides(const at::Tensor& map) {
  const int64_t dim = map.dim();
  return {map.stride(0), map.stride(1), dim == 5 ? map.stride(2) : 0, map.stride(dim - 2), map.stride(dim - 1)};
}

// Whether a map lies as rows of pixels, not as pixels of numbers. One field alone has the strides of either; PyTorch
// lets those of channels_last mean it.
inline bool lies_in_rows(const at::Tensor& map) {
  const int64_t field = map.stride(1), column = map.stride(-1);
  return field == 0 || field > column || (field == column && (map.size(1) > 1 || map.size(-1) * map.size(-2) == 1));
}

// A new map [B, C, |P|, H, W] in the memory format of `like`: rows of pixels, or pixels of numbers, in which fields lie
// together as in `like`, or on a GPU in any case, whose kernels read neighbouring fields at once.
inline at::Tensor empty_map_like(const at::Tensor& like, int64_t fields, int64_t elements, int64_t height,
                                 int64_t width) {
  const int64_t batch = like.size(0);
  const int64_t sizes[] = {batch, fields, elements, height, width};
  if (lies_in_rows(like)) return at::empty(sizes, like.options());
  if (!like.is_cpu() || (like.dim() == 5 && like.stride(2) > like.stride(-1))) {  // channels_last_3d: B, |P|, H, W, C
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
    TORCH_CHECK_VALUE(in + 2 * padding[i] > dilation[i] * (taps - 1), "x is too small: size ", in, " with padding ",
                      padding[i], ", for a kernel of ", taps, " taps with dilation ", dilation[i]);
    if (axis.out == 1) axis.stride = 1;  // nothing is strided over, and a huge stride would split the plane as often
    return axis;
  }
};

inline void check_taps(int64_t size) {
  TORCH_CHECK_VALUE(1 <= size && size <= 1024, "the kernel must have 1 to 1024 taps a side, got ", size);
}

// Shape of a convolution of x [B, groups · C_in, (|P|,) H, W] with C_out fields of output in each of the groups.
inline ConvShape conv_shape(const at::Tensor& x, std::string_view group, int64_t out_fields, int64_t kernel_size,
                            const Geometry& geometry, int64_t groups) {
  ConvShape shape;
  shape.group = checked_group(group);
  TORCH_CHECK_VALUE(x.dim() == 4 || x.dim() == 5, "x must have 4 (image) or 5 (feature map) dimensions, got shape ",
                    x.sizes());
  shape.lifting = x.dim() == 4;
  TORCH_CHECK_VALUE(shape.lifting || x.size(2) == shape.order(), "x must have ", shape.order(), " elements of ",
                    std::string(group), " in dimension 2, got shape ", x.sizes());
  TORCH_CHECK_VALUE(groups >= 1 && x.size(1) % groups == 0 && out_fields % groups == 0,
                    "groups must divide the fields of x, ", x.size(1), ", and of the result, ", out_fields, ", got ",
                    groups);
  TORCH_CHECK_VALUE(x.size(1) > 0 && out_fields > 0, "x and the result must have at least one field, got ", x.size(1),
                    " and ", out_fields);
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

inline std::vector<int64_t> weight_sizes(const ConvShape& shape, int64_t banks) {
  std::vector<int64_t> sizes{shape.groups * shape.out_fields, shape.in_fields};
  if (banks) sizes.insert(sizes.begin(), banks);
  if (!shape.lifting) sizes.push_back(shape.order());
  sizes.insert(sizes.end(), {shape.size, shape.size});
  return sizes;
}

// L, or 0 of a strict convolution.
inline int64_t checked_banks(const std::optional<at::Tensor>& relaxed_weight, std::string_view group, bool lifting,
                             bool relax_input, const at::Tensor& like, const char* like_name) {
  if (!relaxed_weight) return 0;
  TORCH_CHECK_VALUE(!(lifting && relax_input),
                    "relax_on='input' needs a group axis on the input; a lifting convolution has none");
  TORCH_CHECK_VALUE(relaxed_weight->dim() == 2 && relaxed_weight->size(0) > 0,
                    "relaxed_weight must be [L, |P|] with L at least 1, got shape ", relaxed_weight->sizes());
  check_shape(*relaxed_weight, "relaxed_weight", {relaxed_weight->size(0), checked_group(group)->order});
  check_like(*relaxed_weight, "relaxed_weight", like, like_name);
  return relaxed_weight->size(0);
}

inline void check_weight_dim(const at::Tensor& weight, int64_t bank_axis) {
  TORCH_CHECK_VALUE(weight.dim() == 4 + bank_axis || weight.dim() == 5 + bank_axis, "weight must have ", 4 + bank_axis,
                    " (lifting) or ", 5 + bank_axis, " (group convolution) dimensions",
                    bank_axis ? " with a relaxed_weight" : "", ", got shape ", weight.sizes());
}

// The gradient, and what masks it while it is read; masked at once where the two lie differently in memory.
inline std::pair<at::Tensor, const void*> masked_gradient(const at::Tensor& dy,
                                                          const std::optional<at::Tensor>& activated) {
  if (!activated) return {dy, nullptr};
  check_shape(*activated, "activated", dy.sizes());
  check_like(*activated, "activated", dy, "dy");
  if (activated->strides() == dy.strides()) return {dy, activated->const_data_ptr()};
  return {at::threshold_backward(dy, *activated, 0), nullptr};
}

// A convolution whose arguments have been checked.
struct IrrepLayer {
  ScalarType type = ScalarType::Float32;
  ConvShape shape;
  int64_t relaxed_banks = 0;  // L, or 0 of a strict one
  bool relax_input = false;   // relaxed on the input of `shape`

  int64_t banks() const { return std::max<int64_t>(1, relaxed_banks); }
};

inline IrrepLayer fprop_layer(const at::Tensor& x, const at::Tensor& weight,
                              const std::optional<at::Tensor>& relaxed_weight, const std::optional<at::Tensor>& bias,
                              std::string_view group, std::string_view relax_on, const Geometry& geometry,
                              int64_t groups) {
  const int64_t bank_axis = relaxed_weight ? 1 : 0;
  check_weight_dim(weight, bank_axis);
  const int64_t out_fields = weight.size(bank_axis);
  IrrepLayer layer;
  layer.type = scalar_type(x, "x");
  layer.shape = conv_shape(x, group, out_fields, weight.size(-1), geometry, groups);
  layer.relax_input = relaxes_input(relax_on) && relaxed_weight;
  layer.relaxed_banks = checked_banks(relaxed_weight, group, layer.shape.lifting, layer.relax_input, x, "x");
  check_shape(weight, "weight", weight_sizes(layer.shape, layer.relaxed_banks));
  check_like(weight, "weight", x, "x");
  if (bias) {
    check_shape(*bias, "bias", {out_fields});
    check_like(*bias, "bias", x, "x");
  }
  return layer;
}

// As far as the weight tells: an output of one pixel.
inline IrrepLayer weight_layer(const at::Tensor& weight, const std::optional<at::Tensor>& relaxed_weight,
                               std::string_view group, std::string_view relax_on, int64_t groups) {
  const int64_t bank_axis = relaxed_weight ? 1 : 0;
  check_weight_dim(weight, bank_axis);
  IrrepLayer layer;
  layer.type = scalar_type(weight, "weight");
  layer.relax_input = relaxes_input(relax_on) && relaxed_weight;
  ConvShape& s = layer.shape;
  s.group = checked_group(group);
  s.lifting = weight.dim() == 4 + bank_axis;
  const int64_t out_fields = weight.size(bank_axis);
  TORCH_CHECK_VALUE(groups >= 1 && out_fields % groups == 0, "groups must divide the ", out_fields,
                    " output fields, got ", groups);
  check_not_empty(weight);
  check_taps(weight.size(-1));
  s.groups = groups;
  s.in_fields = weight.size(bank_axis + 1);
  s.out_fields = out_fields / groups;
  s.size = static_cast<int>(weight.size(-1));
  s.rows.in = s.columns.in = s.size;
  s.rows.out = s.columns.out = 1;
  layer.relaxed_banks = checked_banks(relaxed_weight, group, s.lifting, layer.relax_input, weight, "weight");
  check_shape(weight, "weight", weight_sizes(s, layer.relaxed_banks));
  return layer;
}

inline void check_transformed_weight(const at::Tensor& transformed, const IrrepLayer& layer, const at::Tensor& weight,
                                     at::ScalarType type) {
  const ConvShape& s = layer.shape;
  const int64_t block = s.in_elements() * s.taps(), steps = static_cast<int64_t>(orbits(s).size()) * s.order();
  check_shape(transformed, "transformed_weight", {weight.numel() / block * steps});
  TORCH_CHECK_TYPE(transformed.scalar_type() == type, "transformed_weight must be ", type, ", got ",
                   transformed.scalar_type());
  TORCH_CHECK_VALUE(transformed.device() == weight.device(), "transformed_weight must be on weight's device ",
                    weight.device(), ", got ", transformed.device());
}

// <dy, fprop(x, ψ)> = <dx, x> makes dx an fprop of dy over the same group, with spread = stride, padding' = dilation (k
// − 1) − padding, ψ'[c, o, a, b] = ψ[o, c, a⁻¹, −a⁻¹ b], and relaxed on the other side. `images`: whether a lifting
// layer is supported, whose dx has no elements.
inline IrrepLayer dgrad_layer(const at::Tensor& dy, const at::Tensor& weight,
                              const std::optional<at::Tensor>& relaxed_weight, std::string_view group,
                              std::string_view relax_on, at::IntArrayRef input_size, const Geometry& geometry,
                              int64_t groups, bool images = false) {
  const int64_t bank_axis = relaxed_weight ? 1 : 0;
  const bool lifting = images && weight.dim() == 4 + bank_axis;
  TORCH_CHECK_VALUE((lifting || weight.dim() == 5 + bank_axis) && weight.size(-1) == weight.size(-2),
                    "weight must be [", bank_axis ? "L, " : "", "C_out, C_in, ", images ? "(|P|,) k, k]" : "|P|, k, k]",
                    ", got shape ", weight.sizes());
  TORCH_CHECK_VALUE(dy.dim() == 5, "dy must have 5 dimensions, got shape ", dy.sizes());
  check_pair(input_size, "input_size", 1);
  const int64_t size = weight.size(-1), order = checked_group(group)->order;
  const int64_t out_fields = weight.size(bank_axis), in_fields = weight.size(bank_axis + 1);  // of the convolution
  TORCH_CHECK_VALUE(groups >= 1 && out_fields % groups == 0, "groups must divide the ", out_fields,
                    " output fields, got ", groups);
  TORCH_CHECK_VALUE(lifting || weight.size(-3) == order, "weight must have ", order, " relative elements in dimension ",
                    2 + bank_axis, ", got shape ", weight.sizes());
  check_not_empty(weight);
  check_taps(size);
  check_like(weight, "weight", dy, "dy");
  const bool relax_input = relaxes_input(relax_on);
  const int64_t banks = checked_banks(relaxed_weight, group, lifting, relax_input, dy, "dy");
  TORCH_CHECK_VALUE(!banks || weight.size(0) == banks, "relaxed_weight must weigh the ", weight.size(0),
                    " banks of weight, got ", banks);
  geometry.check();

  IrrepLayer layer;
  layer.type = scalar_type(dy, "dy");
  layer.relaxed_banks = banks;
  layer.relax_input = banks && !relax_input;
  ConvShape& s = layer.shape;
  s.group = checked_group(group);
  s.lifting = lifting;
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
    axes[i]->padding = geometry.dilation[i] * (size - 1) - geometry.padding[i];
    axes[i]->dilation = geometry.dilation[i];
  }
  check_shape(dy, "dy", {dy.size(0), out_fields, order, s.rows.in, s.columns.in});
  return layer;
}

inline IrrepLayer wgrad_layer(const at::Tensor& x, const at::Tensor& dy,
                              const std::optional<at::Tensor>& relaxed_weight, std::string_view group,
                              std::string_view relax_on, int64_t kernel_size, const Geometry& geometry,
                              int64_t groups) {
  TORCH_CHECK_VALUE(dy.dim() == 5, "dy must have 5 dimensions, got shape ", dy.sizes());
  IrrepLayer layer;
  layer.type = scalar_type(x, "x");
  layer.shape = conv_shape(x, group, dy.size(1), kernel_size, geometry, groups);
  const ConvShape& s = layer.shape;
  check_shape(dy, "dy", {s.batch, dy.size(1), s.order(), s.rows.out, s.columns.out});
  check_like(dy, "dy", x, "x");
  layer.relax_input = relaxes_input(relax_on) && relaxed_weight;
  layer.relaxed_banks = checked_banks(relaxed_weight, group, s.lifting, layer.relax_input, x, "x");
  return layer;
}

}  // namespace gconv
