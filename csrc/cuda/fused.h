// The fused dense form on the GPU: one kernel rotates the filter bank, forms the relaxed sum and correlates, so that
// the expanded filter is never in device memory. In the words of ../conv_shape.h:
//
//   y[b, o, u, p] = Σ_c Σ_v Σ_t F[o, u, c, v, t] · x[b, c, v, …p + t]
//   F[o, u, c, v, t] = Σ_l w_l · ψ[l, o, c, u⁻¹v, u⁻¹t]
//
// F is rounded once to the type. All tensors are of one scalar type and on the current device; sums are formed in
// float32 (float64 for float64), in an order that does not depend on the device. No torch header here.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "../conv_shape.h"
#include "../scalar_type.h"

namespace gconv::cuda {

// fprop, and dgrad as an fprop of the adjoint filter.
struct FusedFpropParams {
  ConvShape shape;  // of a dgrad: read as an fprop, with a spread
  ScalarType type = ScalarType::Float32;
  bool tf32 = false;         // float32 products on the tensor cores, rounded to tf32
  bool adjoint = false;      // dgrad: of a `lifting` shape it is then y that has no elements, not x
  int64_t banks = 1;         // L
  bool relax_input = false;  // w_l is taken at the element of x, else at that of y
  const void* x = nullptr;
  const void* x_activated = nullptr;  // x counts where this, with the strides of x, is above 0 (or NaN), or is nullptr
  MapStrides x_strides;
  const void* weight = nullptr;          // ψ [L, groups · O, C, (|P|,) k, k] of the convolution, contiguous
  const void* relaxed_weight = nullptr;  // [L, |P|]; nullptr: a strict layer
  const void* bias = nullptr;            // [groups · out_fields] or nullptr
  bool relu = false;
  void* y = nullptr;  // written in full
  MapStrides y_strides;
};

// cudaErrorNotSupported: more blocks of threads than a grid has, positions beyond 2^29, or more taps or banks than a
// block has room to note (at the least 15 taps a side, or 100 banks).
cudaError_t fused_fprop(const FusedFpropParams& params, cudaStream_t stream);

struct FusedWgradParams {
  ConvShape shape;
  ScalarType type = ScalarType::Float32;
  bool tf32 = false;
  int64_t banks = 1;
  bool relax_input = false;
  const void* x = nullptr;
  MapStrides x_strides;
  const void* dy = nullptr;
  const void* dy_activated = nullptr;  // as x_activated above
  MapStrides dy_strides;
  const void* relaxed_weight = nullptr;
  void* grad_weight = nullptr;  // [L, groups · O, C, (|P|,) k, k], written in full
  void* workspace = nullptr;    // fused_wgrad_workspace(params) bytes, aligned to 16
};

int64_t fused_wgrad_workspace(const FusedWgradParams& params);
cudaError_t fused_wgrad(const FusedWgradParams& params, cudaStream_t stream);

}  // namespace gconv::cuda
