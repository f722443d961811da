// The emulator itself: right kernels give the right numbers, and each kind of mistake that it is there for is caught.
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <vector>

#include "csrc/testing.h"
#include "cuda/warp_matrix.h"
#include "cuda/warpgroup_matrix.h"

using namespace testing;
using namespace gconv::cuda;

namespace {

void expect(bool right, const char* what) {
  if (!right) ++failures, std::printf("%s\n", what);
}

// ---- Numbers of 16 bits ----------------------------------------------------------------------------------

// Whether `got` is the number nearest to `exact`, of two equally near ones the even one.
template <typename T, typename ToFloat>
bool nearest(T got, double exact, ToFloat to_float) {
  const double error = std::abs(to_float(got) - exact);
  for (int step : {-1, 1}) {
    const double other = std::abs(to_float(T{static_cast<unsigned short>(got.bits + step)}) - exact);
    if (other < error || (other == error && got.bits % 2)) return false;
  }
  return true;
}

template <typename T, typename Pair, typename ToFloat>
void check_16bit(ToFloat to_float) {
  uint64_t state = 7;
  for (int i = 0; i < 200000; ++i) {
    T a{static_cast<unsigned short>(int(noise(state) * 0x8000))},
        b{static_cast<unsigned short>(int(noise(state) * 0x8000))};
    const double x = to_float(a), y = to_float(b);
    if (!(std::abs(x) < 1e4 && std::abs(y) < 1e4 && std::abs(x * y) < 6e4 && std::abs(x * y) > 1e-30 && x + y && x - y))
      continue;
    const Pair sum = __hadd2(Pair{a, b}, Pair{b, a}), difference = __hsub2(Pair{a, b}, Pair{b, a}),
               opposite = __hneg2(Pair{a, b});
    expect(nearest(sum.x, x + y, to_float) && nearest(sum.y, x + y, to_float), "__hadd2");
    expect(nearest(difference.x, x - y, to_float) && nearest(difference.y, y - x, to_float), "__hsub2");
    expect(nearest(__hmul2(Pair{a, b}, Pair{b, a}).x, x * y, to_float), "__hmul2");
    expect(__low2float(opposite) == -x && __high2float(opposite) == -y, "__hneg2");
  }
}

// ---- Threads, shuffles, votes ----------------------------------------------------------------------------

__global__ void warp_kernel(float* out, unsigned* votes, int* count) {
  const int lane = threadIdx.x % warpSize, thread = blockIdx.x * blockDim.x + threadIdx.x;
  float sum = static_cast<float>(thread);
  for (int step = 16; step; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  float running = 1;
  for (int step = 1; step < 32; step *= 2) {
    const float before = __shfl_up_sync(~0u, running, step);
    if (lane >= step) running += before;
  }
  const double down = __shfl_down_sync(~0u, 2.0 * lane, 4, 8);
  out[3 * thread] = __shfl_sync(~0u, sum, 3);
  out[3 * thread + 1] = running;
  out[3 * thread + 2] = static_cast<float>(down);
  if (lane < 16)
    votes[thread] = __ballot_sync(0xffffu, lane % 3 == 0);
  else
    votes[thread] = __all_sync(0xffff0000u, lane >= 16) + 2 * __any_sync(0xffff0000u, lane > 31);
  atomicAdd(count, lane);
}

void check_warps() {
  const int threads = 96, blocks = 3;
  std::vector<float> out(3 * threads * blocks, NAN);
  std::vector<unsigned> votes(threads * blocks);
  int count = 0;
  LAUNCH(warp_kernel, blocks, threads, 0, nullptr, out.data(), votes.data(), &count);
  for (int thread = 0; thread < threads * blocks; ++thread) {
    const int lane = thread % 32;
    expect(out[3 * thread] == (thread - lane) * 32 + 496, "__shfl_xor_sync, __shfl_sync");
    expect(out[3 * thread + 1] == lane + 1, "__shfl_up_sync");
    expect(out[3 * thread + 2] == 2 * (lane % 8 < 4 ? lane + 4 : lane), "__shfl_down_sync");
    expect(votes[thread] == (lane < 16 ? 0x9249u : 1u), "__ballot_sync, __all_sync, __any_sync");
  }
  expect(count == 496 * threads / 32 * blocks, "atomicAdd");
}

__global__ void transpose_kernel(int* to, const int* from, bool poisoned) {
  __shared__ int tile[8][9];
  if (poisoned) expect(tile[threadIdx.y][threadIdx.x] == -1, "shared memory is poisoned in every block");
  tile[threadIdx.y][threadIdx.x] = from[blockIdx.z * 64 + threadIdx.y * 8 + threadIdx.x];
  __syncthreads();
  to[blockIdx.z * 64 + threadIdx.x + threadIdx.y * 8] = tile[threadIdx.x][threadIdx.y];
}

void check_blocks() {
  std::vector<int> from(192), to(192);
  for (int i = 0; i < 192; ++i) from[i] = i;
  LAUNCH(transpose_kernel, dim3(1, 1, 3), dim3(8, 8), 0, nullptr, to.data(), from.data(), true);
  for (int i = 0; i < 192; ++i) expect(to[i] == i / 64 * 64 + i % 8 * 8 + i % 64 / 8, "__syncthreads");
  expect(cudaGetLastError() == cudaSuccess, "a right launch");
  LAUNCH(transpose_kernel, 1, dim3(8, 8, 17), 0, nullptr, to.data(), from.data(), true);
  expect(cudaGetLastError() == cudaErrorInvalidConfiguration && cudaGetLastError() == cudaSuccess,
         "1088 threads in a block");
  LAUNCH(transpose_kernel, dim3(1, 65536), 64, 0, nullptr, to.data(), from.data(), true);
  expect(cudaGetLastError() == cudaErrorInvalidConfiguration, "65536 blocks in y");
  LAUNCH(transpose_kernel, 1, 64, 50 * 1024, nullptr, to.data(), from.data(), true);
  expect(cudaGetLastError() == cudaErrorInvalidValue, "50 KiB of shared memory that were not asked for");
  expect(cudaFuncSetAttribute(transpose_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 228 * 1024) ==
             cudaErrorInvalidValue,
         "more shared memory than there is");
  expect(cudaGetLastError() == cudaErrorInvalidValue && cudaGetLastError() == cudaSuccess, "an error is told once");
}

// Reads what another warp writes, without a barrier between.
__global__ void racing_kernel(int* races, int warps_away) {
  __shared__ int written[128];
  written[threadIdx.x] = threadIdx.x;
  const int other = threadIdx.x + 32 * warps_away;
  if (other >= 0 && other < 128 && written[other] != other) ++*races;
}

void check_orders() {
  for (int warps_away : {-1, 1}) {
    int races = 0;
    LAUNCH(racing_kernel, 16, 128, 0, nullptr, &races, warps_away);
    expect(races > 0 && races < 16 * 96, "warps run in one order");
  }
}

// ---- Fragments -------------------------------------------------------------------------------------------

// Numbers of 32 bits for tf32, else of 16, written where the tables of the PTX manual have them.
template <typename T>
__global__ void one_mma_kernel(const T* a, const T* b, float* c) {
  const int lane = threadIdx.x, group = lane / 4, in_group = lane % 4;
  uint32_t a_registers[4] = {}, b_registers[2] = {};
  float sums[4] = {1, 2, 3, 4};
  if constexpr (sizeof(T) == 2) {
    for (int i = 0; i < 8; ++i) {
      const int row = i < 2 || (i >= 4 && i < 6) ? group : group + 8, column = in_group * 2 + i % 2 + (i >= 4 ? 8 : 0);
      a_registers[i / 2] |= uint32_t{a[row * 16 + column].bits} << 16 * (i % 2);
    }
    for (int i = 0; i < 4; ++i)
      b_registers[i / 2] |= uint32_t{b[(in_group * 2 + i % 2 + (i >= 2 ? 8 : 0)) * 8 + group].bits} << 16 * (i % 2);
    mma_m16n8k16<T>(sums, a_registers, b_registers);
  } else {
    for (int i = 0; i < 4; ++i) a_registers[i] = tf32(a[(group + i % 2 * 8) * 8 + in_group + i / 2 * 4]);
    for (int i = 0; i < 2; ++i) b_registers[i] = tf32(b[(in_group + i * 4) * 8 + group]);
    mma_m16n8k8(sums, a_registers, b_registers);
  }
  for (int i = 0; i < 4; ++i) c[(group + i / 2 * 8) * 8 + in_group * 2 + i % 2] = sums[i];
}

template <typename T>
T number(double value) {
  if constexpr (std::is_same_v<T, __half>) return __float2half(static_cast<float>(value));
  if constexpr (std::is_same_v<T, __nv_bfloat16>) return __float2bfloat16(static_cast<float>(value));
  if constexpr (std::is_same_v<T, float>) return static_cast<float>(value);
}
template <typename T>
double value(T number) {  // as the product sees it
  if constexpr (std::is_same_v<T, __half>) return __half2float(number);
  if constexpr (std::is_same_v<T, __nv_bfloat16>) return __bfloat162float(number);
  if constexpr (std::is_same_v<T, float>) return __uint_as_float(tf32(number));
}

template <typename T>
std::vector<T> numbers(int count, uint64_t& state) {
  std::vector<T> result(count);
  for (T& each : result) each = number<T>(noise(state));
  return result;
}

template <typename T>
void check_fragments() {
  constexpr int depth = sizeof(T) == 2 ? 16 : 8;
  uint64_t state = 3;
  const auto a = numbers<T>(16 * depth, state), b = numbers<T>(depth * 8, state);
  std::vector<float> c(16 * 8, NAN);
  LAUNCH(one_mma_kernel<T>, 1, 32, 0, nullptr, a.data(), b.data(), c.data());
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 8; ++j) {
      double sum = i / 8 * 2 + j % 2 + 1;
      for (int k = 0; k < depth; ++k) sum += value(a[i * depth + k]) * value(b[k * 8 + j]);
      expect(std::abs(c[i * 8 + j] - sum) < 1e-6, "mma: fragments");
    }
}

__global__ void ldmatrix_kernel(uint32_t* out) {
  alignas(16) __shared__ uint16_t matrices[32][8];
  const int lane = threadIdx.x;
  for (int i = 0; i < 8; ++i) matrices[lane][i] = static_cast<uint16_t>(lane * 8 + i);
  __syncwarp();
  uint32_t four[4], four_transposed[4], two[2], two_transposed[2];
  ldmatrix_x4(four, matrices[lane]);
  ldmatrix_x4_trans(four_transposed, matrices[lane]);
  ldmatrix_x2(two, matrices[lane % 16]);
  ldmatrix_x2_trans(two_transposed, matrices[lane % 16]);
  for (int i = 0; i < 4; ++i) {
    out[lane * 8 + i] = four[i];
    out[lane * 8 + 4 + i] = four_transposed[i];
    if (i < 2 && (two[i] != four[i] || two_transposed[i] != four_transposed[i])) out[lane * 8 + i] = ~0u;
  }
}

void check_ldmatrix() {
  std::vector<uint32_t> out(32 * 8);
  LAUNCH(ldmatrix_kernel, 1, 32, 0, nullptr, out.data());
  for (uint32_t lane = 0; lane < 32; ++lane)
    for (uint32_t i = 0; i < 4; ++i) {
      const uint32_t first = i * 64 + lane * 2,
                     down = i * 64 + lane % 4 * 16 + lane / 4;  // row lane / 4, and column lane / 4
      expect(out[lane * 8 + i] == (first | (first + 1) << 16), "ldmatrix");
      expect(out[lane * 8 + 4 + i] == (down | (down + 8) << 16), "ldmatrix.trans");
    }
}

// ---- A pipelined product ---------------------------------------------------------------------------------

enum class Bug { None, NoWait, NoBarrierAfterWait, NoBarrierBeforeCopy };

// C[m, n] = A[m, depth] · B, with B [depth, n], or [n, depth] when ByColumns. Tiles of 32 × 32 × 32, four warps of 16
// × 16. depth and, by rows, n are multiples of 8.
template <typename T, bool ByColumns, Bug bug>
__global__ void gemm_kernel(const T* a, const T* b, float* c, int m, int n, int depth) {
  constexpr int pitch = 40, tile = 32 * pitch;  // numbers
  DYN_SHARED(shared);
  T* const a_tiles = reinterpret_cast<T*>(shared);
  T* const b_tiles = a_tiles + 2 * tile;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, row = warp / 2 * 16, column = warp % 2 * 16;
  const int first_row = blockIdx.y * 32, first_column = blockIdx.x * 32;
  const int copied_row = threadIdx.x / 4, copied_column = threadIdx.x % 4 * 8;
  const auto copy = [&](int stage, int k) {
    const int at = stage * tile + copied_row * pitch + copied_column;
    const bool a_valid = first_row + copied_row < m && k + copied_column < depth;
    cp_async_16(a_tiles + at, a + (a_valid ? (first_row + copied_row) * depth + k + copied_column : 0), a_valid);
    const int b_row = ByColumns ? first_column + copied_row : k + copied_row;
    const int b_column = ByColumns ? k + copied_column : first_column + copied_column;
    const int b_rows = ByColumns ? n : depth, b_columns = ByColumns ? depth : n;
    const bool b_valid = b_row < b_rows && b_column < b_columns;
    cp_async_16(b_tiles + at, b + (b_valid ? b_row * b_columns + b_column : 0), b_valid);
  };
  float sums[2][4] = {};
  copy(0, 0);
  cp_async_commit();
  for (int k = 0, stage = 0; k < depth; k += 32, stage ^= 1) {
    if (k + 32 < depth) copy(stage ^ 1, k + 32);
    cp_async_commit();
    if (bug != Bug::NoWait) cp_async_wait<1>();
    if (bug != Bug::NoBarrierAfterWait) __syncthreads();
    for (int step = 0; step < 32; step += 16) {
      uint32_t a_registers[4], b_registers[2][2];
      ldmatrix_x4(a_registers, a_tiles + stage * tile + (row + lane % 16) * pitch + step + lane / 16 * 8);
      if constexpr (ByColumns) {
        for (int i = 0; i < 2; ++i)
          ldmatrix_x2(b_registers[i],
                      b_tiles + stage * tile + (column + i * 8 + lane % 8) * pitch + step + lane / 8 % 2 * 8);
      } else {
        uint32_t both[4];
        ldmatrix_x4_trans(both, b_tiles + stage * tile + (step + lane % 16) * pitch + column + lane / 16 * 8);
        for (int i = 0; i < 4; ++i) b_registers[i / 2][i % 2] = both[i];
      }
      for (int i = 0; i < 2; ++i) mma_m16n8k16<T>(sums[i], a_registers, b_registers[i]);
    }
    if (bug != Bug::NoBarrierBeforeCopy) __syncthreads();
  }
  for (int i = 0; i < 8; ++i) {
    const int at_row = first_row + row + lane / 4 + i % 4 / 2 * 8,
              at_column = first_column + column + i / 4 * 8 + lane % 4 * 2 + i % 2;
    if (at_row < m && at_column < n) c[at_row * n + at_column] = sums[i / 4][i % 4];
  }
}

// The same in tf32 with copies of 4 bytes, B by rows, any sizes; tiles of 32 × 16 × 16, two warps of 16 × 16.
__global__ void __launch_bounds__(64)
    gemm_tf32_kernel(const float* a, const float* b, float* c, int m, int n, int depth) {
  alignas(16) __shared__ float a_tiles[2][32][20];
  alignas(16) __shared__ float b_tiles[2][16][24];
  const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16, first_row = blockIdx.y * 32,
            first_column = blockIdx.x * 16;
  const auto copy = [&](int stage, int k) {
    for (int i = threadIdx.x; i < 32 * 16; i += 64) {
      const bool valid = first_row + i / 16 < m && k + i % 16 < depth;
      cp_async_4(&a_tiles[stage][i / 16][i % 16], a + (valid ? (first_row + i / 16) * depth + k + i % 16 : 0), valid);
    }
    for (int i = threadIdx.x; i < 16 * 16; i += 64) {
      const bool valid = k + i / 16 < depth && first_column + i % 16 < n;
      cp_async_4(&b_tiles[stage][i / 16][i % 16], b + (valid ? (k + i / 16) * n + first_column + i % 16 : 0), valid);
    }
  };
  float sums[2][4] = {};
  copy(0, 0);
  cp_async_commit();
  for (int k = 0, stage = 0; k < depth; k += 16, stage ^= 1) {
    if (k + 16 < depth) copy(stage ^ 1, k + 16);
    cp_async_commit();
    cp_async_wait<1>();
    __syncthreads();
    for (int step = 0; step < 16; step += 8) {
      uint32_t a_registers[4], b_registers[2];
      for (int i = 0; i < 4; ++i)
        a_registers[i] = tf32(a_tiles[stage][row + lane / 4 + i % 2 * 8][step + lane % 4 + i / 2 * 4]);
      for (int j = 0; j < 2; ++j) {
        for (int i = 0; i < 2; ++i) b_registers[i] = tf32(b_tiles[stage][step + lane % 4 + i * 4][j * 8 + lane / 4]);
        mma_m16n8k8(sums[j], a_registers, b_registers);
      }
    }
    __syncthreads();
  }
  for (int i = 0; i < 8; ++i) {
    const int at_row = first_row + row + lane / 4 + i % 4 / 2 * 8,
              at_column = first_column + i / 4 * 8 + lane % 4 * 2 + i % 2;
    if (at_row < m && at_column < n) c[at_row * n + at_column] = sums[i / 4][i % 4];
  }
}

// The largest error of a product; NaN where one number is.
template <typename T, bool ByColumns, Bug bug = Bug::None>
double gemm_error(int m, int n, int depth) {
  uint64_t state = m + n + depth;
  const auto a = numbers<T>(m * depth, state), b = numbers<T>(depth * n, state);
  std::vector<float> c(m * n, NAN);
  if constexpr (sizeof(T) == 2)
    LAUNCH((gemm_kernel<T, ByColumns, bug>), dim3((n + 31) / 32, (m + 31) / 32), 128, 4 * 32 * 40 * sizeof(T), nullptr,
           a.data(), b.data(), c.data(), m, n, depth);
  else
    LAUNCH(gemm_tf32_kernel, dim3((n + 15) / 16, (m + 31) / 32), 64, 0, nullptr, a.data(), b.data(), c.data(), m, n,
           depth);
  expect(cudaGetLastError() == cudaSuccess, "launch of the product");
  double largest = 0;
  for (int i = 0; i < m; ++i)
    for (int j = 0; j < n; ++j) {
      double sum = 0;
      for (int k = 0; k < depth; ++k) sum += value(a[i * depth + k]) * value(b[ByColumns ? j * depth + k : k * n + j]);
      const double error = std::abs(c[i * n + j] - sum);
      if (std::isnan(error)) return error;
      largest = std::max(largest, error);
    }
  return largest;
}

void check_gemms() {
  expect(tf32(1 + 0x1p-11f) == __float_as_uint(1 + 0x1p-10f) && tf32(-1 - 0x1p-11f + 0x1p-23f) == __float_as_uint(-1),
         "tf32");
  expect(gemm_error<__nv_bfloat16, false>(70, 40, 104) < 1e-5, "product in bfloat16");
  expect(gemm_error<__nv_bfloat16, true>(33, 35, 72) < 1e-5, "product in bfloat16, B by columns");
  expect(gemm_error<__half, false>(32, 64, 128) < 1e-5, "product in float16");
  expect(gemm_error<__half, true>(1, 31, 8) < 1e-5, "product in float16, B by columns");
  expect(gemm_error<float, false>(37, 21, 43) < 1e-5, "product in tf32");
  expect(!(gemm_error<__half, false, Bug::NoWait>(32, 32, 128) < 0.1), "a missing wait is not caught");
  expect(!(gemm_error<__half, false, Bug::NoBarrierAfterWait>(32, 32, 128) < 0.1),
         "a missing barrier after a wait is not caught");
  expect(!(gemm_error<__half, false, Bug::NoBarrierBeforeCopy>(64, 64, 128) < 0.1),
         "a missing barrier before a copy is not caught");
}

// ---- wgmma -----------------------------------------------------------------------------------------------

enum class WgmmaBug {
  None,
  NoFence,
  NoCommit,
  NoProxyFence,
  NoArrival,
  Misplaced,
  ReadsTooEarly,
  OverwritesA,
  OverwritesB
};

// c[64, Columns] = c − a[64, 16] · b[16, Columns], B copied by other threads than those that multiply first.
template <typename T, int Columns>
__global__ void wgmma_kernel(WgmmaBug bug, const T* a, const T* b, float* c) {
  using Rows = SwizzledRows<Columns>;
  DYN_SHARED(shared);
  T* const rows = reinterpret_cast<T*>(shared);
  auto* const there = reinterpret_cast<uint64_t*>(rows + 16 * Columns);
  const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
  if (threadIdx.x == 0) mbarrier_init(there, 128);
  __syncthreads();
  for (int i = 127 - threadIdx.x; i < 16 * Rows::kChunks; i += 128)
    cp_async_16(rows + Rows::place(i / Rows::kChunks, i % Rows::kChunks), b + i * 8);
  cp_async_commit();
  cp_async_wait<0>();
  if (bug != WgmmaBug::NoProxyFence) fence_proxy_async();
  if (bug != WgmmaBug::NoArrival || threadIdx.x) mbarrier_arrive(there);
  mbarrier_wait(there, 0);
  uint32_t numbers[4];
  float sums[Columns / 8][4];
  for (int i = 0; i < 4; ++i) {
    const T* from = a + (row + i % 2 * 8) * 16 + i / 2 * 8 + lane % 4 * 2;
    numbers[i] = from[0].bits | uint32_t{from[1].bits} << 16;
  }
  const auto at = [&](int i) { return (row + i % 4 / 2 * 8) * Columns + i / 4 * 8 + lane % 4 * 2 + i % 2; };
  for (int i = 0; i < Columns / 2; ++i) sums[i / 4][i % 4] = c[at(i)];
  if (bug != WgmmaBug::NoFence) wgmma_fence();
  wgmma_m64k16<T, true>(sums, numbers, Rows::descriptor(rows + (bug == WgmmaBug::Misplaced ? 64 : 0)));
  if (bug != WgmmaBug::NoCommit) wgmma_commit();
  if (bug == WgmmaBug::ReadsTooEarly)
    for (int i = 0; i < Columns / 2; ++i) c[at(i)] = sums[i / 4][i % 4];
  if (bug == WgmmaBug::OverwritesA) numbers[1] = 0;
  if (bug == WgmmaBug::OverwritesB) rows[threadIdx.x] = {};
  wgmma_wait();
  if (bug != WgmmaBug::ReadsTooEarly)
    for (int i = 0; i < Columns / 2; ++i) c[at(i)] = sums[i / 4][i % 4];
}

template <typename T, int Columns>
double wgmma_error(WgmmaBug bug = WgmmaBug::None) {
  uint64_t state = Columns;
  const auto a = numbers<T>(64 * 16, state), b = numbers<T>(16 * Columns, state);
  std::vector<float> c(64 * Columns);
  for (float& number : c) number = static_cast<float>(noise(state));
  const auto before = c;
  LAUNCH((wgmma_kernel<T, Columns>), 1, 128, 16 * Columns * sizeof(T) + 8, nullptr, bug, a.data(), b.data(), c.data());
  double largest = 0;
  for (int i = 0; i < 64; ++i)
    for (int j = 0; j < Columns; ++j) {
      double sum = before[i * Columns + j];
      for (int k = 0; k < 16; ++k) sum -= value(a[i * 16 + k]) * value(b[k * Columns + j]);
      largest = std::max(largest, std::abs(c[i * Columns + j] - sum));
    }
  return largest;
}

void check_wgmma() {
  expect(wgmma_error<__nv_bfloat16, 64>() < 1e-6, "wgmma in bfloat16");
  expect(wgmma_error<__half, 32>() < 1e-6, "wgmma in float16");
  expect(wgmma_error<__half, 64>(WgmmaBug::ReadsTooEarly) > 0.1, "sums read before the wait are not caught");
  expect(wgmma_error<__half, 64>(WgmmaBug::OverwritesA) > 0.1, "an A overwritten before the wait is not caught");
  expect(wgmma_error<__half, 64>(WgmmaBug::OverwritesB) > 0.1, "a B overwritten before the wait is not caught");
}

// ---- What ends the program -------------------------------------------------------------------------------

enum class Mistake { None, Exit, TwoBarriers, Shuffle, Mask, Collectives, Misaligned, NotShared, OutOfBounds };

__global__ void mistaken_kernel(Mistake mistake, int* global) {
  alignas(16) __shared__ int array[40];
  const int thread = threadIdx.x;
  array[mistake == Mistake::OutOfBounds ? thread + 9 : thread] = thread;
  if (mistake == Mistake::Exit && thread == 5) return;
  if (mistake == Mistake::TwoBarriers && thread < 3)
    __syncthreads();
  else
    __syncthreads();
  if (mistake == Mistake::Shuffle && thread == 7) return;
  if (mistake == Mistake::Mask) __syncwarp(0xffff);
  if (mistake == Mistake::Collectives && thread == 3) __syncwarp();
  int* const target = mistake == Mistake::NotShared ? global : array + (mistake == Mistake::Misaligned ? 2 : 4);
  cp_async_16(target, global);
  cp_async_commit();
  cp_async_wait<0>();
  global[4 + thread] = __shfl_xor_sync(~0u, thread, 1);
}

template <typename Run>
bool ends(Run run) {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    std::freopen("/dev/null", "w", stderr);
    run();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status != 0;
}
bool ends(Mistake mistake) {
  return ends([=] {
    alignas(16) int global[36] = {};
    LAUNCH(mistaken_kernel, 1, 32, 0, nullptr, mistake, global);
  });
}
bool ends(WgmmaBug bug) {
  return ends([=] { wgmma_error<__half, 32>(bug); });
}

void check_mistakes() {
  expect(!ends(Mistake::None), "a kernel without mistakes ends the program");
  expect(ends(Mistake::Exit), "a thread that misses __syncthreads is not caught");
  expect(ends(Mistake::TwoBarriers), "two different barriers are not told apart");
  expect(ends(Mistake::Shuffle), "a lane that misses a shuffle is not caught");
  expect(ends(Mistake::Mask), "a lane outside of its own mask is not caught");
  expect(ends(Mistake::Collectives), "two collectives of one warp are not told apart");
  expect(ends(Mistake::Misaligned), "a misaligned cp.async is not caught");
  expect(ends(Mistake::NotShared), "a cp.async to global memory is not caught");
  expect(!ends(WgmmaBug::None), "wgmma without mistakes ends the program");
  expect(ends(WgmmaBug::NoFence), "wgmma without a fence is not caught");
  expect(ends(WgmmaBug::NoCommit), "wgmma that is not committed is not caught");
  expect(ends(WgmmaBug::NoProxyFence), "cp.async without a fence for wgmma is not caught");
  expect(ends(WgmmaBug::NoArrival), "a thread that does not come to an mbarrier is not caught");
  expect(ends(WgmmaBug::Misplaced), "a B inside of a swizzled pattern is not caught");
#ifdef __SANITIZE_ADDRESS__
  expect(ends(Mistake::OutOfBounds), "an index beyond a shared array is not caught");
#endif
}

}  // namespace

int main() {
  check_16bit<__nv_bfloat16, __nv_bfloat162>(__bfloat162float);
  check_16bit<__half, __half2>(__half2float);
  check_warps();
  check_blocks();
  check_orders();
  check_fragments<__nv_bfloat16>();
  check_fragments<__half>();
  check_fragments<float>();
  check_ldmatrix();
  check_gemms();
  check_wgmma();
  check_mistakes();
  std::printf("%d failures\n", failures);
  return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
