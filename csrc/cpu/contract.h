// The sums behind soft translation on the CPU (gconv_ext/contraction.py), over terms k = (input element, tap) of one
// output site q = (pixel, output element). In the one order hidden features φ meet the input before the last weight
// matrix,
//
//   contract            z[q, b, h, c]    = Σ_k φ[q, k, h] · x[at(q) + offset(k), b, c]
//   contract_dgrad      dx[at(q) + offset(k), b, c] += Σ_h φ[q, k, h] · dz[q, b, h, c]
//   contract_hgrad      dφ[q, k, h]      = Σ_b Σ_c x[at(q) + offset(k), b, c] · dz[q, b, h, c]
//
// in the other the filters K of a few sites are rendered first, for all images:
//
//   apply_filters       y[q, b, o]       = Σ_k Σ_c K[q, k, c, o] · x[at(q) + offset(k), b, c]
//   apply_dgrad         dx[at(q) + offset(k), b, c] += Σ_o K[q, k, o, c] · dy[q, b, o]
//   apply_kgrad         dK[q, k, o, c]   = Σ_b dy[q, b, o] · x[at(q) + offset(k), b, c]
//
// x and dx are pixels of numbers, [rows, columns, input elements, B, C], of the rows that some rows of output sites read,
// with the padding around the map; y and dy are the pixels of those rows, [rows, columns, output elements, B, O]. Maps in
// memory, [B, C, elements, rows, columns], are turned into such pixels and back here too. The products with the last
// weight matrix, which make y of z, dz of dy and K of φ, are the caller's. Float32 and float64. No torch header here.
#pragma once

#include <cstdint>

#include "instruction_set.h"
#include "scalar_types.h"

namespace gconv::cpu {

struct ContractParams {
  ScalarType type = ScalarType::Float32;
  int64_t batch = 0, in_fields = 0, out_fields = 0, hidden = 0, terms = 0;
  int64_t out_elements = 1, columns = 1;  // q = (row · columns + column) · out_elements + element
  int64_t row_step = 0, column_step = 0;  // numbers of x from one output pixel to the next
  const int64_t* term_offsets = nullptr;  // [terms], numbers of x

  int64_t at(int64_t site) const {
    const int64_t pixel = site / out_elements;
    return pixel / columns * row_step + pixel % columns * column_step;
  }
};

// Vectors are read whole: behind the last number of every input must lie this many bytes of the same allocation,
// except φ.
constexpr int64_t kContractSlackBytes = 64;

// A block of sites. φ, dφ, y and dy start at site 0, what has the size of the block (z, dz, K, dK) at `begin`.
struct Sites {
  int64_t begin, end;
};

void contract(const ContractParams& params, const void* x, const void* phi, void* z, Sites sites,
              InstructionSet level = best_instruction_set());
void contract_hgrad(const ContractParams& params, const void* x, const void* dz, void* dphi, Sites sites,
                    InstructionSet level = best_instruction_set());
void apply_filters(const ContractParams& params, const void* x, const void* filters, void* y, Sites sites,
                   InstructionSet level = best_instruction_set());
void apply_kgrad(const ContractParams& params, const void* x, const void* dy, void* dfilters, Sites sites,
                 InstructionSet level = best_instruction_set());

// Neighbours share numbers of dx.
void contract_dgrad(const ContractParams& params, const void* phi, const void* dz, void* dx, Sites sites,
                    InstructionSet level = best_instruction_set());
void apply_dgrad(const ContractParams& params, const void* filters, const void* dy, void* dx, Sites sites,
                 InstructionSet level = best_instruction_set());

// A contiguous map [B, C, M, rows, columns] in memory.
struct ContractMap {
  ScalarType type = ScalarType::Float32;
  int64_t batch = 0, fields = 0, elements = 0, rows = 0, columns = 0;
};

// Rows of a map with its padding: row 0 is the topmost of the padding.
struct MapRows {
  int64_t first, count, padding;
};

void pixels_of_map(const ContractMap& shape, const void* map, void* pixels, MapRows rows,
                   InstructionSet level = best_instruction_set());
// The padding is left out. `add`: to what is in the map already.
void pixels_to_map(const ContractMap& shape, const void* pixels, void* map, MapRows rows, bool add,
                   InstructionSet level = best_instruction_set());

}  // namespace gconv::cpu
