// Filter expansion on the CPU: rotation of the bank, permutation of its group axis and the relaxed sum in one pass.
//
//   F[o, u, c, v, t] = Σ_l coefficient_l(u, w) · ψ[l, o, c, w, s]        v = u·w, t = u·s     (filter_shape.h)
//
// It is linear in ψ, in the relaxed weights and in the gradient of F, so its backward pass is all that derivatives of
// every order need. All tensors are contiguous and of one scalar type. No torch header here.
#pragma once

#include <cstdint>

#include "../filter_shape.h"
#include "instruction_set.h"
#include "scalar_types.h"

namespace gconv::cpu {

struct ExpandFilterParams {
  FilterShape shape;
  RelaxOn relax_on = RelaxOn::Output;
  ScalarType type = ScalarType::Float32;
  const int32_t* moved = nullptr;        // moved_positions(shape)
  const void* weight = nullptr;          // [L, O, C, block]
  const void* relaxed_weight = nullptr;  // [L, |P|]; nullptr: a strict layer, one bank with coefficient 1
  void* filter = nullptr;                // [O, |P|, C, block], written in full
};

struct ExpandFilterBackwardParams {
  FilterShape shape;
  RelaxOn relax_on = RelaxOn::Output;
  ScalarType type = ScalarType::Float32;
  const int32_t* moved = nullptr;
  const void* weight = nullptr;  // read only for grad_relaxed_weight
  const void* relaxed_weight = nullptr;
  const void* grad_filter = nullptr;      // [O, |P|, C, block]
  void* grad_weight = nullptr;            // [L, O, C, block], written in full; nullptr: not asked for
  double* grad_relaxed_weight = nullptr;  // [O, L, |P|], one share an output field; nullptr: not asked for
};

// Output fields × input fields [begin, end), counted o · C + c.
void expand_filter(const ExpandFilterParams& params, int64_t begin, int64_t end,
                   InstructionSet level = best_instruction_set());

// Output fields [begin, end). Each field's share is summed in a fixed order, whatever the number of threads.
void expand_filter_backward(const ExpandFilterBackwardParams& params, int64_t begin, int64_t end,
                            InstructionSet level = best_instruction_set());

}  // namespace gconv::cpu
