// Batch normalisation on the CPU (gconv_ext/batch_norm.py), over x [batch, fields, numbers], whose numbers are those of
// all elements and pixels of a field, n = batch · numbers of them in all:
//
//   batch_norm_inference   y = x · scale + (bias − mean · scale), by a given mean and variance
//   batch_norm_fprop       mean = Σ x / n,  var = Σ (x − mean)² / n,  y = (x − mean) · scale + bias
//   batch_norm_dgrad       dbias = Σ dy,  dweight = Σ dy (x − mean) / sqrt(var + eps),
//                          dx = scale · (dy − dbias / n − (x − mean) / sqrt(var + eps) · dweight / n)
//
// with scale = weight / sqrt(var + eps). With relu, y is max(y, 0); with `activated`, the y of a ReLU, dy is 0 where that is not positive. All passes over a field follow each other, so that they find it in the
// second-level cache. Sums are formed in vectors over a few thousand numbers, and those in float64, in an order that
// the number of threads does not change. Float32 and float64. No torch header here.
#pragma once

#include <cstdint>

#include "../scalar_type.h"
#include "instruction_set.h"

namespace gconv::cpu {

struct BatchNormParams {
  ScalarType type = ScalarType::Float32;
  int64_t batch = 0, fields = 0, numbers = 0;
  double eps = 0;
};

struct Fields {
  int64_t begin, end;
};

// weight and bias [fields] may be null, for 1 and 0.
void batch_norm_inference(const BatchNormParams& params, const void* x, const void* weight, const void* bias,
                          const void* mean, const void* var, bool relu, void* y, Fields fields,
                          InstructionSet level = best_instruction_set());

// mean and var [fields] are results.
void batch_norm_fprop(const BatchNormParams& params, const void* x, const void* weight, const void* bias, bool relu,
                      void* y, void* mean, void* var, Fields fields, InstructionSet level = best_instruction_set());

// activated may be null; dx too, where it is not asked for.
void batch_norm_dgrad(const BatchNormParams& params, const void* dy, const void* x, const void* mean, const void* var,
                      const void* weight, const void* activated, void* dx, void* dweight, void* dbias, Fields fields,
                      InstructionSet level = best_instruction_set());

}  // namespace gconv::cpu
