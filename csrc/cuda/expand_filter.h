// Filter expansion on the GPU: csrc/cpu/expand_filter.h says what is computed. Every sum has an order of its own,
// whatever the device. All tensors are contiguous, of one scalar type and on the current device. No torch header here.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "../filter_shape.h"
#include "../scalar_type.h"

namespace gconv::cuda {

struct ExpandFilterParams {
  FilterShape shape;
  RelaxOn relax_on = RelaxOn::Output;
  ScalarType type = ScalarType::Float32;
  const void* weight = nullptr;          // [L, O, C, block]
  const void* relaxed_weight = nullptr;  // [L, |P|]; nullptr: a strict layer, one bank with coefficient 1
  void* filter = nullptr;                // [O, |P|, C, block], written in full
};

struct ExpandFilterBackwardParams {
  FilterShape shape;
  RelaxOn relax_on = RelaxOn::Output;
  ScalarType type = ScalarType::Float32;
  const void* weight = nullptr;  // read only for grad_relaxed_weight
  const void* relaxed_weight = nullptr;
  const void* grad_filter = nullptr;    // [O, |P|, C, block]
  void* grad_weight = nullptr;          // [L, O, C, block], written in full; nullptr: not asked for
  void* grad_relaxed_weight = nullptr;  // [L, |P|], written in full; nullptr: not asked for
  double* workspace = nullptr;          // expand_filter_backward_workspace(shape) numbers, for grad_relaxed_weight
};

cudaError_t expand_filter(const ExpandFilterParams& params, cudaStream_t stream);

int64_t expand_filter_backward_workspace(const FilterShape& shape);
cudaError_t expand_filter_backward(const ExpandFilterBackwardParams& params, cudaStream_t stream);

}  // namespace gconv::cuda
