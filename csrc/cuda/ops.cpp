// The ops on GPUs; ../ops.cpp has their schemas.
#include <torch/library.h>

#include "binding.h"
#include "wgmma_choice.h"

TORCH_LIBRARY_FRAGMENT(gconv_ext, m) { m.def("allow_wgmma(bool allowed) -> bool", &gconv::cuda::allow_wgmma); }

TORCH_LIBRARY_IMPL(gconv_ext, CUDA, m) {
  m.impl("expand_filter", &gconv::expand_filter_cuda);
  m.impl("expand_filter_backward", &gconv::expand_filter_backward_cuda);
  m.impl("irrep_fprop", &gconv::irrep_fprop_cuda);
  m.impl("irrep_transform_weight", &gconv::irrep_transform_weight_cuda);
  m.impl("irrep_dgrad", &gconv::irrep_dgrad_cuda);
  m.impl("irrep_wgrad", &gconv::irrep_wgrad_cuda);
  m.impl("fused_fprop", &gconv::fused_fprop_cuda);
  m.impl("fused_dgrad", &gconv::fused_dgrad_cuda);
  m.impl("fused_wgrad", &gconv::fused_wgrad_cuda);
}
