// The irrep algorithm on the GPU, in the words of ../conv_shape.h. All tensors are of one scalar type and on the current
// device; sums are formed in float32 (float64 for float64), in an order that does not depend on the device. No torch header
// here.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "../conv_shape.h"
#include "../scalar_type.h"

namespace gconv::cuda {

// fprop, and dgrad as an fprop of the adjoint filter.
struct IrrepFpropParams {
  ConvShape shape;  // of a dgrad: read as an fprop, with a spread
  ScalarType type = ScalarType::Float32;
  bool tf32 = false;     // float32 products on the tensor cores, rounded to tf32
  bool adjoint = false;  // weight is read as ψ'[c, o, a, b] = ψ[o, c, a⁻¹, −a⁻¹b], c being an output field of `shape`
  int64_t banks = 1;     // L
  bool relax_input = false;  // relaxed_weight weighs x while it is read, else y while it is written
  const void* x = nullptr;
  const void* x_activated = nullptr;  // x counts where this, with the strides of x, is above 0 (or NaN), or everywhere
  MapStrides x_strides;
  int64_t x_fields = 0;                      // that may be read, zeros beyond those of `shape`; 0: those
  const void* weight = nullptr;              // ψ [L, groups · O, C, |P|, k, k] of the convolution, contiguous
  const void* transformed_weight = nullptr;  // of irrep_transform_weight, or nullptr; `weight` is there in any case
  int64_t transformed_pitch = 0;             // from in field to in field of it, zeros beyond the out fields; 0: as many
  const void* relaxed_weight = nullptr;      // [L, |P|]; nullptr: a strict layer
  const void* bias = nullptr;                // [groups · out_fields] or nullptr
  bool relu = false;
  void* y = nullptr;  // written in full
  MapStrides y_strides;
  void* workspace = nullptr;  // irrep_fprop_workspace(params) bytes, aligned to 16
};

inline int64_t readable_fields(const IrrepFpropParams& p) { return p.x_fields ? p.x_fields : p.shape.in_fields; }
inline int64_t transformed_pitch(const IrrepFpropParams& p) {
  return p.transformed_pitch ? p.transformed_pitch : p.shape.out_fields;
}

// 0 where one launch does it all, and blocks of threads transform what they need of `weight`.
int64_t irrep_fprop_workspace(const IrrepFpropParams& params);
cudaError_t irrep_fprop(const IrrepFpropParams& params, cudaStream_t stream);

// Ψ̂ [L, groups, orbit, plane, in field, transformed_pitch], rounded once to the type; an orbit is a tap, or, of a lifting
// convolution, an orbit of taps. Of params it takes what ψ is, not where it is applied.
int64_t irrep_transformed_numbers(const IrrepFpropParams& params);
cudaError_t irrep_transform_weight(const IrrepFpropParams& params, void* transformed, cudaStream_t stream);

struct IrrepWgradParams {
  ConvShape shape;
  ScalarType type = ScalarType::Float32;
  bool tf32 = false;
  int64_t banks = 1;
  bool relax_input = false;  // relaxed_weight weighs x, else dy
  const void* x = nullptr;
  MapStrides x_strides;
  int64_t x_fields = 0, dy_fields = 0;  // as x_fields above
  const void* dy = nullptr;
  const void* dy_activated = nullptr;  // as x_activated above
  MapStrides dy_strides;
  const void* relaxed_weight = nullptr;
  void* grad_weight = nullptr;  // [L, groups · O, C, |P|, k, k], written in full
  void* workspace = nullptr;    // irrep_wgrad_workspace(params) bytes, aligned to 16
};

inline int64_t readable_x_fields(const IrrepWgradParams& p) { return p.x_fields ? p.x_fields : p.shape.in_fields; }
inline int64_t readable_dy_fields(const IrrepWgradParams& p) { return p.dy_fields ? p.dy_fields : p.shape.out_fields; }

int64_t irrep_wgrad_workspace(const IrrepWgradParams& params);
cudaError_t irrep_wgrad(const IrrepWgradParams& params, cudaStream_t stream);

}  // namespace gconv::cuda
