// The contraction behind soft translation on the CPU: sums over the terms k = (input element, tap) of one output pixel p and
// output element,
//
//   contract            z[p, b, h, c]    = Σ_k φ[p, k, h] · x[at(p) + offset(k), b, c]
//   contract_dgrad      dx[at(p) + offset(k), b, c] += Σ_h φ[p, k, h] · dz[p, b, h, c]
//   contract_hgrad      dφ[p, k, h]      = Σ_b Σ_c x[at(p) + offset(k), b, c] · dz[p, b, h, c]
//
// x lies as padded pixels of numbers, [rows, columns, input elements, B, C]. The products with the last weight matrix, which
// makes y of z and dz of dy, are the caller's. Float32 and float64. No torch header here.
#pragma once

#include <cstdint>

#include "instruction_set.h"
#include "scalar_types.h"

namespace gconv::cpu {

struct ContractParams {
  ScalarType type = ScalarType::Float32;
  int64_t batch = 0, channels = 0, hidden = 0, terms = 0;
  int64_t columns = 1;                        // pixels in a row of the result
  int64_t row_step = 0, column_step = 0;      // numbers of x from one output pixel to the next
  const int64_t* term_offsets = nullptr;      // [terms], numbers of x
  int64_t pixel_stride = 0;                   // numbers of φ from one pixel to the next; [terms, hidden] are contiguous

  int64_t at(int64_t pixel) const { return pixel / columns * row_step + pixel % columns * column_step; }
};

// Vectors are read whole: behind the last number of x and of dz must lie this many bytes of the same allocation.
constexpr int64_t kContractSlackBytes = 64;

// Output pixels [begin, end). z and dz start at pixel `first`.
void contract(const ContractParams& params, const void* x, const void* phi, void* z, int64_t first, int64_t begin, int64_t end,
              InstructionSet level = best_instruction_set());
void contract_hgrad(const ContractParams& params, const void* x, const void* dz, void* dphi, int64_t first, int64_t begin,
                    int64_t end, InstructionSet level = best_instruction_set());
// All pixels [first, end), of the images [image, image_end): these share no number of dx with other images.
void contract_dgrad(const ContractParams& params, const void* phi, const void* dz, void* dx, int64_t first, int64_t end,
                    int64_t image, int64_t image_end, InstructionSet level = best_instruction_set());

}  // namespace gconv::cpu
