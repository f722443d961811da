// Hopper's matrix instructions as functions: four warps in a row call them together, and the products are formed beside
// the program until it waits for them. Only code for sm_90a has them. Fragments and descriptors: the PTX manual,
// "Asynchronous Warpgroup Level Matrix Multiply-Accumulate Instructions".
#pragma once

#include <cstdint>
#include <type_traits>

#include "warp_matrix.h"

// Whether this pass of the compiler may use them.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || !defined(__CUDACC__)
#define GCONV_HAS_WGMMA
#endif

namespace gconv::cuda {

// B in shared memory: rows of 64, 32 or 16 numbers of 16 bits, whose chunks of 16 bytes change places so that eight rows
// meet no bank twice. Eight rows start at a multiple of their size.
template <int Columns>
struct SwizzledRows {
  static_assert(Columns == 64 || Columns == 32 || Columns == 16);
  static constexpr int kChunks = Columns / 8, kEightRowsBytes = 8 * Columns * 2;

  // Where a chunk of eight numbers is, in numbers; a line of 128 bytes is what the hardware counts.
  static constexpr __host__ __device__ int place(int row, int chunk) {
    return row * Columns + (chunk ^ (row * kChunks / 8 % kChunks)) * 8;
  }
  // Of the rows that start there.
  __device__ static uint64_t descriptor(const void* rows) {
    constexpr uint64_t kMode = Columns == 64 ? 1 : Columns == 32 ? 2 : 3;  // swizzling by 128, 64 or 32 bytes
    return (shared_address(rows) & 0x3ffff) >> 4 | uint64_t{kEightRowsBytes >> 4} << 32 | kMode << 62;
  }
};

}  // namespace gconv::cuda

#ifndef __CUDACC__
#include "warpgroup_matrix_emulation.h"
#else

namespace gconv::cuda {

#define GCONV_WGMMA(columns, type, registers, a0, a1, a2, a3, b, one, sign)                                      \
  "{\n.reg .pred all;\nsetp.ne.b32 all, %" one ", 0;\nwgmma.mma_async.sync.aligned.m64n" columns "k16.f32." type \
  "." type " {" registers "}, {%" a0 ", %" a1 ", %" a2 ", %" a3 "}, %" b ", all, %" sign ", 1, 1;\n}\n"
#define GCONV_SUMS(n) "+f"(sums[n][0]), "+f"(sums[n][1]), "+f"(sums[n][2]), "+f"(sums[n][3])

// sums += A·B, or sums −= A·B, with A 64 × 16 by rows and B 16 × (8 · Units), in SwizzledRows, of __nv_bfloat16 or
// __half. A warp has 16 rows of A and of the sums, laid out as those of mma_m16n8k16. Neither may be touched, nor B be
// written, before wgmma_wait.
template <typename T, bool Negated>
__device__ __forceinline__ void wgmma_m64k16(float (&sums)[8][4], const uint32_t (&a)[4], uint64_t b) {
#define GCONV_ALL_SUMS \
  GCONV_SUMS(0), GCONV_SUMS(1), GCONV_SUMS(2), GCONV_SUMS(3), GCONV_SUMS(4), GCONV_SUMS(5), GCONV_SUMS(6), GCONV_SUMS(7)
#define GCONV_REGISTERS                                                                                            \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, " \
  "%24, %25, %26, %27, %28, %29, %30, %31"
  if constexpr (std::is_same_v<T, __half>)
    asm volatile(GCONV_WGMMA("64", "f16", GCONV_REGISTERS, "32", "33", "34", "35", "36", "37", "38")
                 : GCONV_ALL_SUMS
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(1), "n"(Negated ? -1 : 1));
  else
    asm volatile(GCONV_WGMMA("64", "bf16", GCONV_REGISTERS, "32", "33", "34", "35", "36", "37", "38")
                 : GCONV_ALL_SUMS
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(1), "n"(Negated ? -1 : 1));
#undef GCONV_REGISTERS
#undef GCONV_ALL_SUMS
}
template <typename T, bool Negated>
__device__ __forceinline__ void wgmma_m64k16(float (&sums)[4][4], const uint32_t (&a)[4], uint64_t b) {
#define GCONV_ALL_SUMS GCONV_SUMS(0), GCONV_SUMS(1), GCONV_SUMS(2), GCONV_SUMS(3)
#define GCONV_REGISTERS "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
  if constexpr (std::is_same_v<T, __half>)
    asm volatile(GCONV_WGMMA("32", "f16", GCONV_REGISTERS, "16", "17", "18", "19", "20", "21", "22")
                 : GCONV_ALL_SUMS
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(1), "n"(Negated ? -1 : 1));
  else
    asm volatile(GCONV_WGMMA("32", "bf16", GCONV_REGISTERS, "16", "17", "18", "19", "20", "21", "22")
                 : GCONV_ALL_SUMS
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(1), "n"(Negated ? -1 : 1));
#undef GCONV_REGISTERS
#undef GCONV_ALL_SUMS
}
#undef GCONV_SUMS
#undef GCONV_WGMMA

// Before the first product of registers that the program has written.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Until all committed products are formed.
__device__ __forceinline__ void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory"); }

// A chunk of 16 bytes that products shall read from shared memory.
__device__ __forceinline__ void store_for_wgmma(void* shared, uint4 chunk) { *static_cast<uint4*>(shared) = chunk; }

// What this thread has written to shared memory, by cp.async too once it is waited for, is there for the products of those
// threads that it tells of it afterwards.
__device__ __forceinline__ void fence_proxy_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// A barrier in shared memory at which threads tell that they have come, and go on, before they wait for the others.
__device__ __forceinline__ void mbarrier_init(uint64_t* barrier, int threads) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(threads) : "memory");
}
__device__ __forceinline__ void mbarrier_arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
// Until all have come for the time of that parity: 0 the first time, then 1, 0, 1, …
__device__ __forceinline__ void mbarrier_wait(uint64_t* barrier, unsigned parity) {
  unsigned complete;
  do {
    asm volatile(
        "{\n.reg .pred complete;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 complete, [%1], %2;\n"
        "selp.u32 %0, 1, 0, complete;\n}\n"
        : "=r"(complete)
        : "r"(shared_address(barrier)), "r"(parity)
        : "memory");
  } while (!complete);
}

}  // namespace gconv::cuda

#endif
