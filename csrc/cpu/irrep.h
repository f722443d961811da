// The irrep algorithm on the CPU (conv_shape.h, irrep_tables.h): every step's |P| numbers go through the group's
// butterflies, each irrep is a real matrix product of its own, and the inverse butterflies give the result. It needs 6/16
// (C4) and 12/64 (D4) of the multiplications of the dense form, and rotating the input only permutes and negates
// intermediate numbers, so that conv(g·x) and g·conv(x) are the same bits. No torch header here.
//
// dgrad is fprop: of dy, with the adjoint weight and the stride as spread.
#pragma once

#include <memory>

#include "../conv_shape.h"
#include "instruction_set.h"
#include "scalar_types.h"

namespace gconv::cpu {

struct IrrepFpropParams {
  ConvShape shape;
  ScalarType type = ScalarType::Float32;
  const void* x = nullptr;            // [B, groups · C_in, (|P|,) H, W]
  const void* x_activated = nullptr;  // nullptr, or a map that lies like x: numbers of x count where it is above 0
  MapStrides x_strides;
  const void* weight = nullptr;              // [L, groups · C_out, C_in, (|P|,) k, k], contiguous
  bool adjoint = false;                      // or [L, groups · C_in, C_out, |P|, k, k]: see adjoint_positions
  const void* transformed_weight = nullptr;  // of a plan with the same weight, group, lifting, groups and L; or nullptr
  const void* relaxed_weight = nullptr;      // w [L, |P|], contiguous, or nullptr when L is 1
  int64_t banks = 1;                         // L
  bool relax_input = false;                  // w weighs the elements of x, else those of y
  const void* bias = nullptr;                // [groups · C_out] or nullptr
  bool relu = false;
  void* y = nullptr;  // [B, groups · C_out, |P|, H', W'], written in full but for what leaves_zeros tells
  MapStrides y_strides;
  int64_t most_images = 1;  // that may be computed as one; nothing of the result depends on it
};

// Whether no tap reaches some pixels of y, as in the dgrad of a 1 × 1 convolution with stride 2: these must be zero before.
bool leaves_zeros(const IrrepFpropParams& params);

// First each unit of `transform_weight` once, then each of `run`, both in any order and thread.
class IrrepFpropPlan {
 public:
  virtual ~IrrepFpropPlan() = default;
  virtual int64_t transform_units() const = 0;  // 0 where the transformed weight was given
  virtual void transform_weight(int64_t begin, int64_t end) = 0;
  // Images, one or several at a time, times the blocks of fields.
  virtual int64_t stacks() const = 0;
  // Work is counted in parts of them: unit = stack · parts + part.
  virtual void run(int64_t begin, int64_t end, int64_t parts) const = 0;
  // What the matrix products read, [numbers] of the type that sums are formed in.
  virtual const void* transformed_weight() const = 0;
  virtual int64_t transformed_numbers() const = 0;
};

std::unique_ptr<IrrepFpropPlan> plan_irrep_fprop(const IrrepFpropParams& params,
                                                 InstructionSet level = best_instruction_set());

struct IrrepWgradParams {
  ConvShape shape;
  ScalarType type = ScalarType::Float32;
  const void* x = nullptr;
  MapStrides x_strides;
  const void* dy = nullptr;
  const void* dy_activated = nullptr;  // as IrrepFpropParams::x_activated
  MapStrides dy_strides;
  const void* x_scale = nullptr;   // [|P|]: of a bank of a relaxed convolution on the input
  const void* dy_scale = nullptr;  // [|P|]: on the output
  void* grad_weight = nullptr;     // of that bank; as IrrepFpropParams::weight, written in full
};

// Input fields and images are cut into parts of fixed borders. Those of different images are summed apart and added in
// order, so that the result does not depend on who computes which part.
class IrrepWgradPlan {
 public:
  virtual ~IrrepWgradPlan() = default;
  // Each unit of `run` once, in any order and thread, then each of `finish`.
  virtual int64_t units() const = 0;
  virtual void run(int64_t begin, int64_t end) = 0;
  virtual int64_t finish_units() const = 0;
  virtual void finish(int64_t begin, int64_t end) = 0;
};

std::unique_ptr<IrrepWgradPlan> plan_irrep_wgrad(const IrrepWgradParams& params,
                                                 InstructionSet level = best_instruction_set());

}  // namespace gconv::cpu
