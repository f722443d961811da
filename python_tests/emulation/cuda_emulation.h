// Runs CUDA kernels on the CPU, for correctness: the .cu files of csrc/cuda compiled by g++ with this folder on the
// include path, where it stands in for CUDA's own headers.
//
// Every CUDA thread of a block is a fibre (a stack of its own and a dozen lines of assembly to switch); blocks run one
// after another. A fibre runs until it waits for others: at __syncthreads, or at a warp collective (shuffle, mma, ...),
// which the last lane to come performs for all of them. What the emulator is for is to catch mistakes:
//
//   * the order in which warps and lanes run changes at random between waits (reproducibly), so that a missing
//     barrier shows;
//   * shared memory is poisoned (every float a NaN) when a block starts, and the target of a cp.async until its wait;
//   * barriers and collectives that not all threads reach and misaligned copies end the program; launches that CUDA
//     would refuse fail as they would there;
//   * memory accesses are checked by AddressSanitizer and UndefinedBehaviorSanitizer, shared arrays included (kernels
//     in an anonymous namespace, g++ with -fsanitize-sections=gconv_shared).
//
// It says nothing about speed, and knows no memory model finer than the waits. TMA is not emulated.
#pragma once

#ifndef __x86_64__
#error "The emulator's switch between fibres is written for x86-64"
#endif

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

// ---- The language ----------------------------------------------------------------------------------------

#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static __attribute__((section("gconv_shared")))

using std::max;
using std::min;

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

#define GCONV_VECTORS(type, name)                                  \
  struct alignas(2 * sizeof(type)) name##2 { type x, y; };         \
  struct alignas(16) name##4 { type x, y, z, w; };                 \
  inline name##2 make_##name##2(type x, type y) { return {x, y}; } \
  inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
GCONV_VECTORS(float, float)
GCONV_VECTORS(int, int)
GCONV_VECTORS(unsigned, uint)
#undef GCONV_VECTORS

inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;
constexpr int warpSize = 32;

// ---- The runtime API -------------------------------------------------------------------------------------

using cudaStream_t = struct CUstream_st*;
enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorNotSupported = 801
};
enum cudaDeviceAttr { cudaDevAttrComputeCapabilityMajor = 75 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };

extern "C" char __start_gconv_shared[] __attribute__((weak));  // the linker's names for the ends of the section
extern "C" char __stop_gconv_shared[] __attribute__((weak));

// ---- Threads and their waits -----------------------------------------------------------------------------

extern "C" void gconv_switch_stack(void** saved_stack_pointer, void* stack_pointer);
asm(R"(
  .pushsection .text
  .weak gconv_switch_stack
  .type gconv_switch_stack, @function
gconv_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .popsection
)");

namespace emulation {

constexpr int kMaxThreads = 1024;
constexpr std::size_t kStackBytes = 256 * 1024, kSharedBytesUnasked = 48 * 1024, kSharedBytesMost = 227 * 1024;
constexpr unsigned char kPoison = 0xff;

struct Copy {  // one cp.async under way
  void* to;
  int bytes, group;
  std::array<unsigned char, 16> data;
};

struct WarpgroupProduct {  // one wgmma under way
  float* sums;
  const uint32_t* a;
  uint64_t b;
  int columns;
  bool negated;
  float (*to_float)(uint16_t);
  int line;
  bool committed;
};

struct Thread {
  enum State { Finished, Ready, AtBarrier, AtCollective, AtMbarrier } state = Finished;
  uint3 index;
  const char* waits_for = "";
  int line = 0;
  std::vector<Copy> copies;
  int groups_committed = 0;
  std::vector<WarpgroupProduct> products;
  bool wgmma_fenced = false, written_unfenced = false;
  void *stack_pointer = nullptr, *stack = nullptr, *fake_stack = nullptr;
};

// A collective of the lanes of `mask` of one warp, while they gather.
struct Gathering {
  unsigned mask = 0, arrived = 0;
  const char* name = "";
  int line = 0;
  void* operands[32] = {};
};

struct Machine {
  std::vector<Thread> threads{kMaxThreads};
  std::array<std::array<Gathering, 32>, kMaxThreads / 32> gatherings;  // by warp and lowest lane of the mask
  std::function<void()> kernel;
  int count = 0, finished = 0, at_barrier = 0, interval = 0, current = 0;
  uint64_t random = 1;
  std::unique_ptr<unsigned char, decltype(&std::free)> dynamic_shared{nullptr, &std::free};
  std::size_t dynamic_shared_bytes = 0;
  std::map<const void*, std::size_t> allowed_shared_bytes;
  cudaError_t last_error = cudaSuccess;
  int launches = 0, wgmmas = 0;
  int capability = 9;                                    // the major number
  void *stack_pointer = nullptr, *fake_stack = nullptr;  // of the fibre that schedules, the program's own
  const void* stack = nullptr;
  std::size_t stack_bytes = 0;
};
inline Machine machine;

[[noreturn]] inline void fail(const char* format, ...) {
  std::fprintf(stderr, "CUDA emulation: block (%u, %u, %u), thread (%u, %u, %u): ", blockIdx.x, blockIdx.y, blockIdx.z,
               threadIdx.x, threadIdx.y, threadIdx.z);
  std::va_list arguments;
  va_start(arguments, format);
  std::vfprintf(stderr, format, arguments);
  std::fputc('\n', stderr);
  std::abort();
}

// AddressSanitizer must be told of every switch: begin before it, end after it on the other stack.
inline void begin_switch([[maybe_unused]] void** fake_stack, [[maybe_unused]] const void* stack,
                         [[maybe_unused]] std::size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(fake_stack, stack, bytes);
#endif
}
inline void end_switch([[maybe_unused]] void* fake_stack, [[maybe_unused]] const void** from,
                       [[maybe_unused]] std::size_t* bytes) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fake_stack, from, bytes);
#endif
}

inline Thread& current() { return machine.threads[machine.current]; }

// From the scheduler to a thread.
inline void resume(int index) {
  Thread& thread = machine.threads[index];
  machine.current = index;
  threadIdx = thread.index;
  begin_switch(&machine.fake_stack, thread.stack, kStackBytes);
  gconv_switch_stack(&machine.stack_pointer, thread.stack_pointer);
  end_switch(machine.fake_stack, nullptr, nullptr);
}

// From the running thread to the scheduler, until it is resumed.
inline void leave() {
  Thread& thread = current();
  begin_switch(&thread.fake_stack, machine.stack, machine.stack_bytes);
  gconv_switch_stack(&thread.stack_pointer, machine.stack_pointer);
  end_switch(thread.fake_stack, &machine.stack, &machine.stack_bytes);
}

// The life of a fibre: one thread of one block after another.
inline void run_fibre() {
  end_switch(nullptr, &machine.stack, &machine.stack_bytes);
  for (;;) {
    machine.kernel();
    if (machine.at_barrier) fail("left the kernel while %d threads wait at __syncthreads", machine.at_barrier);
    if (!current().products.empty()) fail("left the kernel before its wgmma were waited for");
    current().state = Thread::Finished;
    ++machine.finished;
    leave();
  }
}

inline void make_fibre(Thread& thread) {
  const std::size_t page = sysconf(_SC_PAGESIZE);  // one that may not be touched, below the stack
  void* memory =
      mmap(nullptr, kStackBytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE)) fail("no memory for stacks");
  thread.stack = static_cast<char*>(memory) + page;
  void** top = reinterpret_cast<void**>(static_cast<char*>(thread.stack) + kStackBytes);
  // What the first switch returns to, after six registers. There is no caller above: top[-1] is null.
  top[-2] = reinterpret_cast<void*>(&run_fibre);
  thread.stack_pointer = top - 8;
}

inline uint64_t random_number() {
  machine.random = machine.random * 6364136223846793005u + 1442695040888963407u;
  return machine.random >> 33;
}

template <typename Call>
void in_random_order(int count, Call call) {
  const int first = random_number() % count, step = random_number() % 2 ? 1 : count - 1;
  for (int i = 0, at = first; i < count; ++i, at = (at + step) % count) call(at);
}

// Runs a warp as far as it comes without the others, so that a warp may be a whole interval between barriers ahead: of
// two accesses that no barrier keeps apart, either may come first. Tells whether it came any further.
inline bool run_warp(int warp) {
  bool ran = false, more = true;
  for (const int interval = machine.interval; more && machine.interval == interval;) {
    more = false;
    in_random_order(std::min(32, machine.count - 32 * warp), [&](int lane) {
      const int thread = 32 * warp + lane;
      if (machine.interval == interval && machine.threads[thread].state == Thread::Ready)
        resume(thread), more = ran = true;
    });
  }
  return ran;
}

inline void run_block() {
  machine.finished = machine.at_barrier = machine.interval = 0;
  for (int i = 0; i < machine.count; ++i) {
    Thread& thread = machine.threads[i];
    thread.state = Thread::Ready;
    thread.copies.clear();
    thread.groups_committed = 0;
    thread.products.clear();
    thread.wgmma_fenced = thread.written_unfenced = false;
  }
  // Not memset, whose calls AddressSanitizer checks: between the arrays of the section lie its red zones.
  void* to = __start_gconv_shared;
  std::size_t bytes = __stop_gconv_shared - __start_gconv_shared;
  asm volatile("rep stosb" : "+D"(to), "+c"(bytes) : "a"(kPoison) : "memory");
  std::memset(machine.dynamic_shared.get(), kPoison, machine.dynamic_shared_bytes);

  while (machine.finished < machine.count) {
    bool ran = false;
    in_random_order((machine.count + 31) / 32, [&](int warp) { ran = ran || run_warp(warp); });
    if (ran) continue;
    for (int i = 0; i < machine.count; ++i)
      if (machine.threads[i].state != Thread::Finished)
        std::fprintf(stderr, "thread %d waits at %s, line %d\n", i, machine.threads[i].waits_for,
                     machine.threads[i].line);
    fail("all threads that are left wait for each other");
  }
}

inline void barrier(int line) {
  if (machine.finished) fail("__syncthreads (line %d) after %d threads left the kernel", line, machine.finished);
  Thread& thread = current();
  thread.waits_for = "__syncthreads";
  thread.line = line;
  thread.state = Thread::AtBarrier;
  if (++machine.at_barrier < machine.count) return leave();
  for (int i = 0; i < machine.count; ++i) {
    Thread& other = machine.threads[i];
    if (other.line != line) fail("__syncthreads on line %d here and on line %d in thread %d", line, other.line, i);
    other.state = Thread::Ready;
  }
  machine.at_barrier = 0;
  ++machine.interval;
  leave();  // the next interval has an order of its own
}

inline int lane() { return machine.current % 32; }

// perform(operands of each lane, null for those outside the mask) is called once all lanes of the mask are here.
inline void collective(unsigned mask, const char* name, int line, void* operands, void (*perform)(void* const*)) {
  const int warp = machine.current / 32, threads_left = machine.count - warp * 32;
  if (threads_left < 32) mask &= (1u << threads_left) - 1;  // the last warp may be a part
  if (!(mask >> lane() & 1))
    fail("%s on line %d: the mask %08x does not hold lane %d itself", name, line, mask, lane());
  Gathering& gathering = machine.gatherings[warp][__builtin_ctz(mask)];
  if (!gathering.arrived) gathering.mask = mask, gathering.name = name, gathering.line = line;
  if (gathering.mask != mask || gathering.line != line || std::strcmp(gathering.name, name))
    fail("lanes of a warp diverge: %s (line %d, mask %08x) and %s (line %d, mask %08x)", name, line, mask,
         gathering.name, gathering.line, gathering.mask);
  gathering.operands[lane()] = operands;
  gathering.arrived |= 1u << lane();
  if (gathering.arrived != mask) {
    Thread& thread = current();
    thread.waits_for = name;
    thread.line = line;
    thread.state = Thread::AtCollective;
    return leave();
  }
  if (perform) perform(gathering.operands);
  gathering = {};
  for (int other = 0; other < 32; ++other)
    if (mask >> other & 1) machine.threads[warp * 32 + other].state = Thread::Ready;
}

template <typename... Parameters>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes, cudaStream_t,
            std::common_type_t<Parameters>... arguments) {
  const uint64_t count = uint64_t{block.x} * block.y * block.z;
  const auto allowed = machine.allowed_shared_bytes.find(reinterpret_cast<const void*>(kernel));
  if (shared_bytes > (allowed == machine.allowed_shared_bytes.end() ? kSharedBytesUnasked : allowed->second)) {
    machine.last_error = cudaErrorInvalidValue;
    return;
  }
  if (count == 0 || count > kMaxThreads || block.z > 64 || !grid.x || grid.x > INT32_MAX || !grid.y || grid.y > 65535 ||
      !grid.z || grid.z > 65535) {
    machine.last_error = cudaErrorInvalidConfiguration;
    return;
  }
  ++machine.launches;
  blockDim = block;
  gridDim = grid;
  machine.count = static_cast<int>(count);
  machine.kernel = [&] { kernel(arguments...); };
  void* shared = nullptr;
  if (posix_memalign(&shared, 1024, std::max<std::size_t>(1, shared_bytes))) fail("no memory for shared memory");
  machine.dynamic_shared.reset(static_cast<unsigned char*>(shared));
  machine.dynamic_shared_bytes = shared_bytes;
  for (int i = 0; i < machine.count; ++i) {
    Thread& thread = machine.threads[i];
    thread.index = {i % block.x, i / block.x % block.y, i / (block.x * block.y)};
    if (!thread.stack) make_fibre(thread);
  }
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        blockIdx = {x, y, z};
        run_block();
      }
}

inline bool is_shared(const void* pointer, std::size_t bytes) {
  const char* at = static_cast<const char*>(pointer);
  const char* dynamic = reinterpret_cast<const char*>(machine.dynamic_shared.get());
  return (at >= __start_gconv_shared && at + bytes <= __stop_gconv_shared) ||
         (at >= dynamic && at + bytes <= dynamic + machine.dynamic_shared_bytes);
}

template <typename T>
struct Shuffled {
  T value, result;
  int from;
};

template <typename T>
T shuffle(unsigned mask, T value, int from, const char* name, int line) {
  static_assert(std::is_trivially_copyable_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
  Shuffled<T> shuffled{value, {}, from};
  collective(mask, name, line, &shuffled, [](void* const* operands) {
    for (int i = 0; i < 32; ++i)
      if (auto* mine = static_cast<Shuffled<T>*>(operands[i])) {
        if (const auto* other = static_cast<const Shuffled<T>*>(operands[mine->from]))
          mine->result = other->value;
        else  // a lane that does not take part: undefined
          std::memset(static_cast<void*>(&mine->result), kPoison, sizeof(T));
      }
  });
  return shuffled.result;
}

struct Vote {
  bool predicate;
  unsigned result;
};

}  // namespace emulation

// ---- What kernels and their launchers call ---------------------------------------------------------------

inline cudaError_t cudaGetLastError() { return std::exchange(emulation::machine.last_error, cudaSuccess); }
inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess             ? "no error"
         : error == cudaErrorInvalidValue ? "invalid argument"
         : error == cudaErrorNotSupported ? "operation not supported"
                                          : "invalid configuration argument";
}
template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute, int bytes) {
  if (bytes < 0 || bytes > static_cast<int>(emulation::kSharedBytesMost))
    return emulation::machine.last_error = cudaErrorInvalidValue;
  emulation::machine.allowed_shared_bytes[reinterpret_cast<const void*>(kernel)] = bytes;
  return cudaSuccess;
}

inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  return *value = emulation::machine.capability, cudaSuccess;
}

inline void __syncthreads(int line = __builtin_LINE()) { emulation::barrier(line); }
inline void __syncwarp(unsigned mask = ~0u, int line = __builtin_LINE()) {
  emulation::collective(mask, "__syncwarp", line, nullptr, nullptr);
}
[[noreturn]] inline void __trap() { emulation::fail("__trap"); }
inline void __threadfence() {}
inline void __threadfence_block() {}

template <typename T>
T __shfl_sync(unsigned mask, T value, int from, int width = 32, int line = __builtin_LINE()) {
  const int first = emulation::lane() & -width;
  return emulation::shuffle(mask, value, first + (from & (width - 1)), "__shfl_sync", line);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, int line = __builtin_LINE()) {
  const int lane = emulation::lane(), from = lane - static_cast<int>(delta);
  return emulation::shuffle(mask, value, from < (lane & -width) ? lane : from, "__shfl_up_sync", line);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, int line = __builtin_LINE()) {
  const int lane = emulation::lane(), from = lane + static_cast<int>(delta);
  return emulation::shuffle(mask, value, from >= (lane & -width) + width ? lane : from, "__shfl_down_sync", line);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, int line = __builtin_LINE()) {
  const int lane = emulation::lane(), from = lane ^ bits;
  return emulation::shuffle(mask, value, from >= (lane & -width) + width ? lane : from, "__shfl_xor_sync", line);
}

inline unsigned __ballot_sync(unsigned mask, bool predicate, int line = __builtin_LINE()) {
  emulation::Vote vote{predicate, 0};
  emulation::collective(mask, "__ballot_sync", line, &vote, [](void* const* operands) {
    unsigned result = 0;
    for (int i = 0; i < 32; ++i)
      if (operands[i] && static_cast<emulation::Vote*>(operands[i])->predicate) result |= 1u << i;
    for (int i = 0; i < 32; ++i)
      if (operands[i]) static_cast<emulation::Vote*>(operands[i])->result = result;
  });
  return vote.result;
}
inline bool __any_sync(unsigned mask, bool predicate, int line = __builtin_LINE()) {
  return __ballot_sync(mask, predicate, line) != 0;
}
inline bool __all_sync(unsigned mask, bool predicate, int line = __builtin_LINE()) {
  return __ballot_sync(mask, !predicate, line) == 0;
}

template <typename T>
T atomicAdd(T* address, T value) {
  return std::exchange(*address, *address + value);
}
template <typename T>
T __ldg(const T* address) {
  return *address;
}

inline unsigned __float_as_uint(float value) {
  unsigned bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline float __uint_as_float(unsigned bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
// Products that are rounded, whatever -ffp-contract says of those that are written as a * b.
inline float __fmul_rn(float a, float b) {
  float product = a * b;
  asm("" : "+x"(product));
  return product;
}
inline double __dmul_rn(double a, double b) {
  double product = a * b;
  asm("" : "+x"(product));
  return product;
}
// Four of the eight bytes of y:x, by the last three bits of each digit of the selector.
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const uint64_t bytes = uint64_t{y} << 32 | x;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) result |= unsigned(bytes >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
  return result;
}
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __clz(int bits) { return bits ? __builtin_clz(bits) : 32; }

// For csrc/cuda/device.h, which defines them for nvcc.
#define LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  emulation::launch(kernel, grid, block, shared_bytes, stream, __VA_ARGS__)
#define DYN_SHARED(name) unsigned char* const name = emulation::machine.dynamic_shared.get()
