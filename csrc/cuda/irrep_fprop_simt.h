// irrep_fprop on the CUDA cores, for float32 (without tf32) and float64: every product is a multiply-add of the type.
// No torch header here.
#pragma once

#include "irrep.h"

namespace gconv::cuda {

// transformed: Ψ̂ [bank, block of fields, orbit, plane, in field, out field], contiguous, of the type of x; the orbits
// are the taps, or the tap orbits of a lifting convolution. Of a dgrad it is the adjoint filter's. nullptr: blocks of
// threads make it of params.weight, of which there are at most kMostWeightBytes (irrep_weight.h). params.workspace is
// not read. cudaErrorInvalidValue: another type, or a geometry that the kernel has no room for (more than about 30 taps
// a side, or 19 where a block has no more than kMostSharedBytes; positions beyond 2^29).
//
// width: the out fields of a tile in float32, 8, 16, 32 or 64, or 0 for what suits the shape. The bits are the same.
cudaError_t irrep_fprop_simt(const IrrepFpropParams& params, const void* transformed, cudaStream_t stream,
                             int width = 0);

}  // namespace gconv::cuda
