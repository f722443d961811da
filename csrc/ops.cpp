// The list of ops: schemas, and the function behind each on the CPU; on GPUs, cuda/ops.cpp. gconv_ext/ops.py holds the fakes,
// gconv_ext/autograd.py the derivatives.
#include <torch/library.h>

#include "batch_norm.h"
#include "contract.h"
#include "expand_filter.h"
#include "irrep.h"
#include "window_sum.h"

TORCH_LIBRARY(gconv_ext, m) {
  m.def("expand_filter(Tensor weight, Tensor? relaxed_weight, str group, str relax_on) -> Tensor");
  m.def(
      "expand_filter_backward(Tensor grad_filter, Tensor weight, Tensor? relaxed_weight, str group, str relax_on, "
      "bool[2] output_mask) -> (Tensor grad_weight, Tensor grad_relaxed_weight)");
  m.def(
      "irrep_fprop(Tensor x, Tensor weight, Tensor? relaxed_weight, Tensor? bias, Tensor? transformed_weight, str group, "
      "str relax_on, int[] stride, int[] padding, int[] dilation, int groups, bool relu) -> Tensor");
  m.def("irrep_transform_weight(Tensor weight, Tensor? relaxed_weight, str group, str relax_on, int groups) -> Tensor");
  m.def(
      "irrep_dgrad(Tensor dy, Tensor weight, Tensor? relaxed_weight, Tensor? activated, str group, str relax_on, "
      "SymInt[] input_size, int[] stride, int[] padding, int[] dilation, int groups) -> Tensor");
  m.def(
      "irrep_wgrad(Tensor x, Tensor dy, Tensor? relaxed_weight, Tensor? activated, str group, str relax_on, int kernel_size, "
      "int[] stride, int[] padding, int[] dilation, int groups) -> Tensor");
  m.def("contract_fprop(Tensor x, Tensor hidden, Tensor weight, int stride, int padding) -> Tensor");
  m.def(
      "contract_backward(Tensor dy, Tensor x, Tensor hidden, Tensor weight, int stride, int padding, bool[3] output_mask) "
      "-> (Tensor grad_x, Tensor grad_hidden, Tensor grad_weight)");
  m.def(
      "batch_norm_inference(Tensor x, Tensor? weight, Tensor? bias, Tensor mean, Tensor var, float eps, bool relu) "
      "-> Tensor");
  m.def(
      "batch_norm_fprop(Tensor x, Tensor? weight, Tensor? bias, float eps, bool relu) "
      "-> (Tensor y, Tensor mean, Tensor var)");
  m.def(
      "batch_norm_dgrad(Tensor dy, Tensor x, Tensor mean, Tensor var, Tensor? weight, Tensor? activated, float eps, "
      "bool need_x) "
      "-> (Tensor dx, Tensor dweight, Tensor dbias)");
  m.def("window_sum_fprop(Tensor x, float[] taps, int stride, int padding) -> Tensor");
  m.def("window_sum_dgrad(Tensor dy, float[] taps, SymInt[] input_size, int stride, int padding) -> Tensor");
  // On GPUs alone.
  m.def(
      "fused_fprop(Tensor x, Tensor weight, Tensor? relaxed_weight, Tensor? bias, Tensor? transformed_weight, str group, "
      "str relax_on, int[] stride, int[] padding, int[] dilation, int groups, bool relu) -> Tensor");
  m.def(
      "fused_dgrad(Tensor dy, Tensor weight, Tensor? relaxed_weight, Tensor? activated, str group, str relax_on, "
      "SymInt[] input_size, int[] stride, int[] padding, int[] dilation, int groups) -> Tensor");
  m.def(
      "fused_wgrad(Tensor x, Tensor dy, Tensor? relaxed_weight, Tensor? activated, str group, str relax_on, int kernel_size, "
      "int[] stride, int[] padding, int[] dilation, int groups) -> Tensor");
}

TORCH_LIBRARY_IMPL(gconv_ext, CPU, m) {
  m.impl("expand_filter", &gconv::expand_filter_cpu);
  m.impl("expand_filter_backward", &gconv::expand_filter_backward_cpu);
  m.impl("irrep_fprop", &gconv::irrep_fprop_cpu);
  m.impl("irrep_transform_weight", &gconv::irrep_transform_weight_cpu);
  m.impl("irrep_dgrad", &gconv::irrep_dgrad_cpu);
  m.impl("irrep_wgrad", &gconv::irrep_wgrad_cpu);
  m.impl("contract_fprop", &gconv::contract_fprop_cpu);
  m.impl("contract_backward", &gconv::contract_backward_cpu);
  m.impl("batch_norm_inference", &gconv::batch_norm_inference_cpu);
  m.impl("batch_norm_fprop", &gconv::batch_norm_fprop_cpu);
  m.impl("batch_norm_dgrad", &gconv::batch_norm_dgrad_cpu);
  m.impl("window_sum_fprop", &gconv::window_sum_fprop_cpu);
  m.impl("window_sum_dgrad", &gconv::window_sum_dgrad_cpu);
}
