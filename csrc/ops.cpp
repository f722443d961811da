// The list of ops: schemas and the function behind each on each device. gconv_ext/ops.py holds the fakes,
// gconv_ext/autograd.py the derivatives.
#include <torch/library.h>

#include "expand_filter.h"

TORCH_LIBRARY(gconv_ext, m) {
  m.def("expand_filter(Tensor weight, Tensor? relaxed_weight, str group, str relax_on) -> Tensor");
  m.def(
      "expand_filter_backward(Tensor grad_filter, Tensor weight, Tensor? relaxed_weight, str group, str relax_on, "
      "bool[2] output_mask) -> (Tensor grad_weight, Tensor grad_relaxed_weight)");
}

TORCH_LIBRARY_IMPL(gconv_ext, CPU, m) {
  m.impl("expand_filter", &gconv::expand_filter_cpu);
  m.impl("expand_filter_backward", &gconv::expand_filter_backward_cpu);
}
