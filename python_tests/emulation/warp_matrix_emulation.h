// The functions of csrc/cuda/warp_matrix.h as warp collectives of the emulator. The layouts of fragments are those of
// the PTX manual, "Matrix Fragments for mma" and "ldmatrix".
#pragma once

#include "cuda_16bit_emulation.h"

namespace emulation {

struct MmaOperands {
  float* sums;
  const uint32_t *a, *b;
};

// sums += A·B with A 16 × Depth, B Depth × 8. `number(word, half)` gives one number of a fragment's register. A
// register of 16-bit numbers holds two, of neighbouring k; one of tf32 holds one. Registers of A go on 8 rows, then 4 ·
// PerWord in k.
template <int Depth, int PerWord, typename Number>
void multiply(void* const* operands, Number number) {
  float a[16][Depth], b[Depth][8];
  for (int lane = 0; lane < 32; ++lane) {
    const auto& mine = *static_cast<const MmaOperands*>(operands[lane]);
    for (int half = 0; half < PerWord; ++half)
      for (int i = 0; i < 4; ++i) {
        const int k = i / 2 * 4 * PerWord + lane % 4 * PerWord + half;
        a[i % 2 * 8 + lane / 4][k] = number(mine.a[i], half);
        if (i % 2 == 0) b[k][lane / 4] = number(mine.b[i / 2], half);
      }
  }
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 4; ++i) {
      float& to = static_cast<const MmaOperands*>(operands[lane])->sums[i];
      double sum = to;
      for (int k = 0; k < Depth; ++k) sum += double{a[i / 2 * 8 + lane / 4][k]} * b[k][lane % 4 * 2 + i % 2];
      to = static_cast<float>(sum);
    }
}

struct LoadOperands {
  const void* row;
  uint32_t* registers;
};

template <int Matrices, bool Transposed>
void load_matrices(void* const* operands) {
  for (int i = 0; i < Matrices; ++i) {
    uint16_t matrix[8][8];
    for (int row = 0; row < 8; ++row)
      std::memcpy(matrix[row], static_cast<const LoadOperands*>(operands[i * 8 + row])->row, sizeof matrix[row]);
    for (int lane = 0; lane < 32; ++lane) {
      const int row = lane / 4, column = lane % 4 * 2;
      const uint16_t low = Transposed ? matrix[column][row] : matrix[row][column];
      const uint16_t high = Transposed ? matrix[column + 1][row] : matrix[row][column + 1];
      static_cast<const LoadOperands*>(operands[lane])->registers[i] = low | uint32_t{high} << 16;
    }
  }
}

template <int Matrices, bool Transposed>
void ldmatrix(uint32_t (&registers)[Matrices], const void* row, int line) {
  if (lane() < 8 * Matrices) {
    if (!is_shared(row, 16)) fail("ldmatrix on line %d: the row at %p is not in shared memory", line, row);
    if (reinterpret_cast<uintptr_t>(row) % 16)
      fail("ldmatrix on line %d: the row at %p is not aligned to 16 bytes", line, row);
  }
  LoadOperands mine{row, registers};
  collective(~0u, "ldmatrix", line, &mine, load_matrices<Matrices, Transposed>);
}

inline void cp_async(void* shared, const void* global, int bytes, bool valid, int line) {
  if (!is_shared(shared, bytes)) fail("cp.async on line %d: the target %p is not in shared memory", line, shared);
  if (reinterpret_cast<uintptr_t>(shared) % bytes || reinterpret_cast<uintptr_t>(global) % bytes)
    fail("cp.async on line %d: %p or %p is not aligned to %d bytes", line, shared, global, bytes);
  Copy copy{shared, bytes, current().groups_committed, {}};
  if (valid) std::memcpy(copy.data.data(), global, bytes);
  std::memset(shared, kPoison, bytes);
  current().copies.push_back(copy);
}

}  // namespace emulation

namespace gconv::cuda {

inline uint32_t shared_address(const void* pointer) {  // of dynamic shared memory
  return static_cast<uint32_t>(static_cast<const unsigned char*>(pointer) - emulation::machine.dynamic_shared.get());
}

template <typename T>
void mma_m16n8k16(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], int line = __builtin_LINE()) {
  emulation::MmaOperands mine{sums, a, b};
  emulation::collective(~0u, "mma.m16n8k16", line, &mine, [](void* const* operands) {
    emulation::multiply<16, 2>(operands, [](uint32_t word, int half) {
      const auto bits = static_cast<uint16_t>(word >> 16 * half);
      if constexpr (std::is_same_v<T, __half>) return __half2float({bits});
      if constexpr (std::is_same_v<T, __nv_bfloat16>) return __bfloat162float({bits});
    });
  });
}

// The processor ignores the 13 last bits of each operand.
inline void mma_m16n8k8(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], int line = __builtin_LINE()) {
  emulation::MmaOperands mine{sums, a, b};
  emulation::collective(~0u, "mma.m16n8k8", line, &mine, [](void* const* operands) {
    emulation::multiply<8, 1>(operands, [](uint32_t word, int) { return __uint_as_float(word & ~0x1fffu); });
  });
}

// To nearest, ties away from zero, as cvt.rna.tf32.f32 does.
inline uint32_t tf32(float value) {
  return std::isfinite(value) ? (__float_as_uint(value) + 0x1000u) & ~0x1fffu : __float_as_uint(value);
}

inline void ldmatrix_x4(uint32_t (&registers)[4], const void* row, int line = __builtin_LINE()) {
  emulation::ldmatrix<4, false>(registers, row, line);
}
inline void ldmatrix_x4_trans(uint32_t (&registers)[4], const void* row, int line = __builtin_LINE()) {
  emulation::ldmatrix<4, true>(registers, row, line);
}
inline void ldmatrix_x2(uint32_t (&registers)[2], const void* row, int line = __builtin_LINE()) {
  emulation::ldmatrix<2, false>(registers, row, line);
}
inline void ldmatrix_x2_trans(uint32_t (&registers)[2], const void* row, int line = __builtin_LINE()) {
  emulation::ldmatrix<2, true>(registers, row, line);
}

inline void cp_async_16(void* shared, const void* global, bool valid = true, int line = __builtin_LINE()) {
  emulation::cp_async(shared, global, 16, valid, line);
}
inline void cp_async_4(void* shared, const void* global, bool valid = true, int line = __builtin_LINE()) {
  emulation::cp_async(shared, global, 4, valid, line);
}
inline void cp_async_commit() { ++emulation::current().groups_committed; }
template <int Groups>
void cp_async_wait() {
  auto& thread = emulation::current();
  auto arrived = [&](const emulation::Copy& copy) { return copy.group < thread.groups_committed - Groups; };
  for (const emulation::Copy& copy : thread.copies)
    if (arrived(copy)) std::memcpy(copy.to, copy.data.data(), copy.bytes), thread.written_unfenced = true;
  thread.copies.erase(std::remove_if(thread.copies.begin(), thread.copies.end(), arrived), thread.copies.end());
}

}  // namespace gconv::cuda
