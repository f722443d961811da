#include "irrep_fprop_simt.h"

#include <algorithm>
#include <cstdlib>

#include "irrep_fprop_simt_block.h"

namespace gconv::cuda {
namespace {

using namespace simt;

template <typename Group, typename T, int OutFields>
__global__ void __launch_bounds__(Tile<Group, T, OutFields>::threads, 256 / Tile<Group, T, OutFields>::threads)
    irrep_fprop_simt_kernel(const __grid_constant__ Problem<T> problem) {
  DYN_SHARED(shared);
  Block<Group, T, Tile<Group, T, OutFields>>(problem, shared).run();
}

template <typename T>
bool is_aligned(const void* pointer, int numbers) {
  return reinterpret_cast<uintptr_t>(pointer) % (numbers * sizeof(T)) == 0;
}

// Positions are 32-bit numbers in the kernel.
bool fits(const Axis& axis, int size) {
  constexpr int64_t most = 1 << 29;
  const int64_t last_tap = axis.dilation * size, padding = std::abs(axis.padding);
  return axis.out * axis.stride < most && axis.in < most && last_tap < most && padding < most;
}

template <typename Tile>
int64_t pixel_tiles_of(const ConvShape& s) {
  return (s.batch * phase_size(s.rows, 0) * phase_size(s.columns, 0) + Tile::pixels - 1) / Tile::pixels;
}

template <typename Group, typename T, int OutFields>
cudaError_t launch(const IrrepFpropParams& p, const void* transformed, cudaStream_t stream) {
  using Tile = simt::Tile<Group, T, OutFields>;
  using Block = simt::Block<Group, T, Tile>;
  // The narrowest tiles have room for any ψ that blocks are to transform.
  static_assert(OutFields > 16 || Block::weight_offset(0) + kMostWeightBytes <= kMostSharedBytes);
  const ConvShape& s = p.shape;
  const MapStrides& xs = p.x_strides;
  const auto pointer = [](const void* numbers) { return static_cast<const T*>(numbers); };
  Problem<T> problem;
  problem.matrices = s.group->matrices, problem.inverse = s.group->inverse;
  problem.weight = weight_of<T>(p, transformed);
  problem.rows = s.rows, problem.columns = s.columns;
  problem.x_strides = xs, problem.y_strides = p.y_strides;
  problem.x = pointer(p.x), problem.x_activated = pointer(p.x_activated), problem.filter = pointer(transformed);
  problem.relaxed_weight = pointer(p.relaxed_weight), problem.bias = pointer(p.bias), problem.y = static_cast<T*>(p.y);
  problem.batch = s.batch;
  problem.in_fields = static_cast<int>(s.in_fields), problem.out_fields = static_cast<int>(s.out_fields);
  problem.banks = static_cast<int>(p.banks), problem.blocks = static_cast<int>(s.groups);
  problem.size = s.size;
  problem.lifting = s.lifting, problem.relu = p.relu;
  problem.relax_input = p.relaxed_weight && p.relax_input;
  problem.x_by_fields = xs.field == 1 && xs.column != 1;
  problem.y_by_fields = p.y_strides.field == 1 && p.y_strides.column != 1;
  constexpr int loads = Tile::load_vector;
  problem.x_vectors = problem.x_by_fields && s.in_fields % loads == 0 && xs.batch % loads == 0 &&
                      xs.element % loads == 0 && xs.row % loads == 0 && xs.column % loads == 0 &&
                      is_aligned<T>(p.x, loads) && is_aligned<T>(p.x_activated, loads);
  problem.filter_vectors = s.out_fields % Tile::vector == 0 && is_aligned<T>(transformed, Tile::vector);

  const int64_t field_tiles = (s.out_fields + OutFields - 1) / OutFields, pixel_tiles = pixel_tiles_of<Tile>(s);
  const int64_t phases = s.rows.spread * s.columns.spread, blocks = field_tiles * pixel_tiles * phases * s.groups;
  if (blocks == 0) return cudaSuccess;
  if (blocks > INT32_MAX || !fits(s.rows, s.size) || !fits(s.columns, s.size)) return cudaErrorInvalidValue;
  problem.field_tiles = static_cast<unsigned>(field_tiles), problem.pixel_tiles = static_cast<unsigned>(pixel_tiles);
  problem.phases = static_cast<unsigned>(phases);

  const int64_t shared = Block::shared_bytes(problem.weight);
  if (shared > INT32_MAX) return cudaErrorInvalidValue;
  const auto kernel = irrep_fprop_simt_kernel<Group, T, OutFields>;
  if (const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared))
    return error;
  LAUNCH(kernel, static_cast<unsigned>(blocks), Tile::threads, shared, stream, problem);
  return cudaGetLastError();
}

// What a width costs in time: reading x takes a tile as long as 7 more out fields, and an H200 works on 132 tiles at
// once. What not every device has room for costs more than all else. The sums do not depend on the choice.
template <typename Group, typename Tile>
int64_t cost(const ConvShape& s, const Weight<float>& weight) {
  static_assert(Block<Group, float, Tile>::weight_offset(0) <= kMostSharedBytes);
  const int64_t shared = Block<Group, float, Tile>::shared_bytes(weight);
  if (shared > kMostSharedBytes) return (int64_t{1} << 62) + shared;
  const int64_t field_tiles = (s.out_fields + Tile::out_fields - 1) / Tile::out_fields;
  const int64_t tiles = field_tiles * pixel_tiles_of<Tile>(s) * s.rows.spread * s.columns.spread * s.groups;
  return (tiles + 131) / 132 * Tile::pixels * (Tile::out_fields + 7);
}

template <typename Group, int... Widths>
cudaError_t launch_float(const IrrepFpropParams& p, const void* transformed, cudaStream_t stream, int width) {
  const Weight<float> weight = weight_of<float>(p, transformed);
  const int64_t least = std::min({cost<Group, Tile<Group, float, Widths>>(p.shape, weight)...});
  cudaError_t error = cudaErrorInvalidValue;
  // The widest of those that cost least.
  (((width ? width == Widths : cost<Group, Tile<Group, float, Widths>>(p.shape, weight) == least) &&
    (error = launch<Group, float, Widths>(p, transformed, stream), true)) ||
   ...);
  return error;
}

}  // namespace

cudaError_t irrep_fprop_simt(const IrrepFpropParams& p, const void* transformed, cudaStream_t stream, int width) {
  return with_fourier_table(p.shape.group->name, [&](auto table) {
    using Group = decltype(table);
    if (p.type == ScalarType::Float64) return launch<Group, double, 16>(p, transformed, stream);
    if (p.type != ScalarType::Float32) return cudaErrorInvalidValue;
    return launch_float<Group, 64, 32, 16, 8>(p, transformed, stream, width);
  });
}

}  // namespace gconv::cuda
