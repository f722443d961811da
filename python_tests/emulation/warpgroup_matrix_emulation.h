// The functions of csrc/cuda/warpgroup_matrix.h for the emulator. Products are formed when they are waited for, from what A,
// B and the sums hold then, so that whatever touches one of them too early shows.
#pragma once

#include <type_traits>

#include "cuda_16bit_emulation.h"

namespace emulation {

// The number of B that a descriptor has in row k and that column, by the PTX manual's canonical layout of a transposed B
// that is swizzled: lines of 128 bytes, in which chunks of 16 bytes are exchanged by the number of the line.
inline uint16_t number_of_b(uint64_t descriptor, int columns, int k, int column, int line) {
  const uint64_t start = (descriptor & 0x3fff) << 4, eight_rows = (descriptor >> 32 & 0x3fff) << 4;
  const uint64_t row_bytes = 2 * columns, mode = descriptor >> 62;
  if (mode != (columns == 64 ? 1 : 2))
    fail("wgmma on line %d: a B of %d columns, swizzled by mode %d", line, columns, int(mode));
  if (start % (8 * row_bytes))
    fail("wgmma on line %d: B starts at %#zx, inside of a swizzled pattern", line, size_t(start));
  uint64_t at = start + k / 8 * eight_rows + k % 8 * row_bytes + 2 * column;
  at ^= (at >> 7 & (columns / 8 - 1)) << 4;
  if (at + 2 > machine.dynamic_shared_bytes) fail("wgmma on line %d: B ends beyond the shared memory", line);
  uint16_t number;
  std::memcpy(&number, machine.dynamic_shared.get() + at, sizeof number);
  return number;
}

inline void wgmma(float* sums, const uint32_t* a, uint64_t b, int columns, bool negated, float (*to_float)(uint16_t),
                  int line) {
  if (!current().wgmma_fenced) fail("wgmma on line %d: no wgmma.fence after registers were written", line);
  if (machine.count % 128) fail("wgmma on line %d: %d threads are no warpgroups", line, machine.count);
  for (int i = 0; i < machine.count; ++i)
    if (machine.threads[i].written_unfenced)
      fail("wgmma on line %d: thread %d wrote shared memory without a fence.proxy.async after it", line, i);
  ++machine.wgmmas;
  current().products.push_back({sums, a, b, columns, negated, to_float, line, false});
}

// Of a warp: its 16 rows of A, which it holds as mma.m16n8k16 has them.
inline void form_products(void* const* operands) {
  const auto products = [&](int lane) -> const std::vector<WarpgroupProduct>& {
    return *static_cast<const std::vector<WarpgroupProduct>*>(operands[lane]);
  };
  for (std::size_t i = 0; i < products(0).size(); ++i) {
    const WarpgroupProduct first = products(0)[i];
    for (int lane = 0; lane < 32; ++lane)
      if (products(lane).size() != products(0).size() || products(lane)[i].line != first.line)
        fail("wgmma: lanes of a warp diverge");
    if (!first.committed) fail("wgmma on line %d: waited for without wgmma.commit_group", first.line);
    float a[16][16], b[16][64];
    for (int lane = 0; lane < 32; ++lane)
      for (int j = 0; j < 8; ++j) {
        const auto bits = static_cast<uint16_t>(products(lane)[i].a[j / 2] >> 16 * (j % 2));
        const float number = first.to_float(bits);
        a[j / 2 % 2 * 8 + lane / 4][j / 4 * 8 + lane % 4 * 2 + j % 2] = first.negated ? -number : number;
      }
    for (int k = 0; k < 16; ++k)
      for (int column = 0; column < first.columns; ++column)
        b[k][column] = first.to_float(number_of_b(first.b, first.columns, k, column, first.line));
    for (int lane = 0; lane < 32; ++lane)
      for (int j = 0; j < first.columns / 2; ++j) {
        float& to = products(lane)[i].sums[j];
        const int row = j / 2 % 2 * 8 + lane / 4, column = j / 4 * 8 + lane % 4 * 2 + j % 2;
        double sum = to;
        for (int k = 0; k < 16; ++k) sum += double{a[row][k]} * b[k][column];
        to = static_cast<float>(sum);
      }
  }
}

// In the eight bytes of an mbarrier.
struct Mbarrier {
  uint16_t threads, arrived;
  uint32_t completed;
};

inline Mbarrier load_mbarrier(const uint64_t* barrier, const char* name, int line) {
  if (!is_shared(barrier, sizeof *barrier)) fail("%s on line %d: %p is not in shared memory", name, line, barrier);
  Mbarrier value;
  std::memcpy(&value, barrier, sizeof value);
  if (value.threads == 0 || value.threads > kMaxThreads) fail("%s on line %d: a barrier that was not made", name, line);
  return value;
}

}  // namespace emulation

namespace gconv::cuda {

template <typename T, bool Negated, int Units>
void wgmma_m64k16(float (&sums)[Units][4], const uint32_t (&a)[4], uint64_t b, int line = __builtin_LINE()) {
  static_assert(Units == 4 || Units == 8);
  emulation::wgmma(
      &sums[0][0], a, b, 8 * Units, Negated,
      [](uint16_t bits) {
        if constexpr (std::is_same_v<T, __half>) return __half2float({bits});
        if constexpr (std::is_same_v<T, __nv_bfloat16>) return __bfloat162float({bits});
      },
      line);
}
inline void wgmma_fence() { emulation::current().wgmma_fenced = true; }
inline void wgmma_commit() {
  for (auto& product : emulation::current().products) product.committed = true;
}
inline void wgmma_wait(int line = __builtin_LINE()) {
  emulation::Thread& thread = emulation::current();
  emulation::collective(~0u, "wgmma.wait_group", line, &thread.products, emulation::form_products);
  thread.products.clear();
  thread.wgmma_fenced = false;
}

inline void store_for_wgmma(void* shared, uint4 chunk, int line = __builtin_LINE()) {
  if (!emulation::is_shared(shared, sizeof chunk) || reinterpret_cast<uintptr_t>(shared) % sizeof chunk)
    emulation::fail("store_for_wgmma on line %d: %p is not a place for a chunk in shared memory", line, shared);
  std::memcpy(shared, &chunk, sizeof chunk);
  emulation::current().written_unfenced = true;
}
inline void fence_proxy_async() { emulation::current().written_unfenced = false; }

inline void mbarrier_init(uint64_t* barrier, int threads, int line = __builtin_LINE()) {
  if (!emulation::is_shared(barrier, sizeof *barrier) || reinterpret_cast<uintptr_t>(barrier) % sizeof *barrier)
    emulation::fail("mbarrier.init on line %d: %p is not a place in shared memory", line, barrier);
  const emulation::Mbarrier made{static_cast<uint16_t>(threads), 0, 0};
  std::memcpy(barrier, &made, sizeof made);
}
inline void mbarrier_arrive(uint64_t* barrier, int line = __builtin_LINE()) {
  emulation::Mbarrier value = emulation::load_mbarrier(barrier, "mbarrier.arrive", line);
  if (++value.arrived == value.threads) {
    value.arrived = 0, ++value.completed;
    for (int i = 0; i < emulation::machine.count; ++i)
      if (emulation::Thread& other = emulation::machine.threads[i]; other.state == emulation::Thread::AtMbarrier)
        other.state = emulation::Thread::Ready;
  }
  std::memcpy(barrier, &value, sizeof value);
}
inline void mbarrier_wait(uint64_t* barrier, unsigned parity, int line = __builtin_LINE()) {
  while (emulation::load_mbarrier(barrier, "mbarrier.try_wait", line).completed % 2 == parity) {
    emulation::Thread& thread = emulation::current();
    thread.waits_for = "mbarrier.try_wait";
    thread.line = line;
    thread.state = emulation::Thread::AtMbarrier;
    emulation::leave();
  }
}

}  // namespace gconv::cuda
