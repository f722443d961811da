// x as A operands of mma or wgmma in registers -> its planes, in the same registers.
#pragma once

#include "fourier.h"
#include "mma_operand.h"

namespace gconv::cuda {
namespace {

// w · x, rounded once.
template <typename T, int MT>
__device__ __forceinline__ void scale(float w, uint32_t (&x)[MT][4]) {
#pragma unroll
  for (int i = 0; i < 4 * MT; ++i)
    x[i / 4][i % 4] = for_each_number<T>([w](float value) { return product(w, value); }, x[i / 4][i % 4]);
}

// In place: the |P| tiles of x, each in the registers of MT of mma's A operands -> their planes.
template <typename T, typename Group, int MT>
__device__ __forceinline__ void transform_tiles(uint32_t (&x)[Group::table.order][MT][4]) {
  constexpr int order = Group::table.order;
#pragma unroll
  for (int i = 0; i < 4 * MT; ++i) {
    typename Operand<T>::Value f[order];
#pragma unroll
    for (int g = 0; g < order; ++g) f[g] = Operand<T>::value(x[g][i / 4][i % 4]);
    fourier<Group>(f);
#pragma unroll
    for (int g = 0; g < order; ++g) x[g][i / 4][i % 4] = Operand<T>::bits(f[g]);
  }
}

}  // namespace
}  // namespace gconv::cuda
