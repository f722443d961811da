// A block goes through tiles of pixels. What a tile reads of x and dy is in shared memory, with the zeros around it, so that
// the operands of every orbit come from there by ldmatrix, whatever tap and element shift them: with few fields a warp would
// spend more on reading and storing X̂ for one orbit than on its products. A warp has three orbits, which share ŷ, and a
// part of a tile's steps; the parts are added in the end.
#include "irrep_wgrad_staged.h"

#include "irrep_groups.h"
#include "irrep_wgrad_result.h"
#include "operand_transform.h"
#include "staged_map.h"

namespace gconv::cuda {
namespace {

constexpr int kOrbits = kStagedOrbits, kMostWarps = kStagedWarps;
constexpr int kStep = 16, kTilePixels = kWgradTilePixels, kSteps = kTilePixels / kStep;
constexpr int kOrder = 4;
constexpr int kStaticBytes = 1024;  // of shared memory; more than a block takes beside the maps

template <typename T>
struct Problem {
  Problem(const IrrepWgradParams& params, const WgradPlan& plan)
      : result(params, plan), groups(staged_orbit_groups(params.shape)), parts(plan.warps / groups.value),
        x(params.x, nullptr, params.x_strides, params.shape.in_fields, params.shape.batch, params.shape.rows,
          params.shape.columns, params.shape.size, kTilePixels, params.shape.size),
        dy(params.dy, params.dy_activated, params.dy_strides, params.shape.out_fields, params.shape.batch,
           of_y(params.shape.rows), of_y(params.shape.columns), 1, kTilePixels, 1),
        rows(params.shape.rows.out), columns(params.shape.columns.out), pixels(plan.pixels),
        share_pixels(plan.share_pixels), relaxed_weight(static_cast<const T*>(params.relaxed_weight)),
        relax_input(params.relax_input) {}

  static Axis of_y(const Axis& axis) {
    Axis own;
    own.in = own.out = axis.out;
    return own;
  }
  int64_t shared_bytes() const { return x.bytes(kOrder) + dy.bytes(kOrder); }

  WgradResult<T> result;
  Divisor groups;  // of orbits, and parts of a tile's steps: each warp has one of both
  int parts;
  StagedMap<T> x, dy;
  Divisor rows, columns;  // of y
  int64_t pixels, share_pixels;
  const T* relaxed_weight;
  bool relax_input;
};

// Which part of the work is a block's: a share of the pixels, for one block of fields of one bank.
struct BlockPart {
  int block, bank, share, tiles;

  BlockPart() = default;
  template <typename T>
  __device__ BlockPart(const Problem<T>& p, int index)
      : block(index % p.result.blocks), bank(index / p.result.blocks % p.result.banks),
        share(index / p.result.blocks / p.result.banks),
        tiles(static_cast<int>((min(p.share_pixels, p.pixels - share * p.share_pixels) + kTilePixels - 1) /
                               kTilePixels)) {}
};

// Pixels of y.
template <typename T>
struct Tile : PixelRun {
  int count;

  __device__ Tile(const Problem<T>& p, int share, int number)
      : Tile(p, share * p.share_pixels + number * kTilePixels) {}
  __device__ Tile(const Problem<T>& p, int64_t first)
      : PixelRun(p.rows, p.columns, first), count(static_cast<int>(min(int64_t{kTilePixels}, p.pixels - first))) {}
};

// A map of a tile in shared memory. The last tile of all may have fewer pixels: the others are in the rows after the last
// image, which are zeros.
template <typename T>
struct TileMap {
  const StagedMap<T>& map;
  T* numbers;
  int first_row, rows;  // rows that the tile's pixels read

  __device__ TileMap(const StagedMap<T>& map, T* numbers, const Tile<T>& tile, int size)
      : map(map), numbers(numbers), first_row(map.row_of(tile.first_image, tile.pixel(0))),
        rows(map.row_of(tile.first_image, tile.pixel(tile.count - 1)) + size - first_row) {}

  // size: rows that one pixel reads.
  __device__ __forceinline__ void stage(const Tile<T>& tile, int block, int size, const T* scale) const {
    const int count = tile.count < kTilePixels ? rows + size : rows;
    stage_map<kOrder>(map, tile.first_image, block, first_row, count, scale, numbers);
  }
  __device__ int place(const Tile<T>& tile, int chunk, int index) const {
    const Pixel pixel = tile.pixel(index);
    const bool inside = index < tile.count;
    const int row = inside ? map.row_of(tile.first_image, pixel) - first_row : rows;
    return map.place(chunk, row * map.image_columns.value + (inside ? pixel.column : 0));
  }
};

template <typename T, typename Group, int NT>
__global__ void __launch_bounds__(32 * kMostWarps, 2) irrep_wgrad_staged_kernel(const __grid_constant__ Problem<T> p) {
  static_assert(Group::table.order == kOrder);
  const WgradResult<T>& result = p.result;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  // A warp's part of a tile's steps and group of orbits, found again where they are needed: registers are scarce.
  const auto part = [&] { return p.groups.quotient(threadIdx.x / 32); };
  const auto group = [&] { return static_cast<int>(threadIdx.x / 32) - part() * p.groups.value; };
  // What is here and not in registers is so because there are not enough of them.
  __shared__ BlockPart of_block;
  __shared__ int4 shifts[kMostWarps][kOrbits];  // from a pixel's place in x, of an orbit's elements
  if (threadIdx.x == 0) of_block = BlockPart(p, blockIdx.x);

  DYN_SHARED(shared);
  T* const x_numbers = reinterpret_cast<T*>(shared);
  T* const dy_numbers = x_numbers + kOrder * p.x.element_numbers();
  const int size = result.size, taps = size * size;
  if (lane < kOrbits * kOrder) {
    const int g = lane % kOrder,
              moved = moved_tap(result.matrices[g], min(group() * kOrbits + lane / kOrder, taps - 1), size);
    reinterpret_cast<int*>(&shifts[warp][lane / kOrder])[g] =
        g * p.x.element_numbers() + p.x.place(0, moved / size * p.x.image_columns.value + moved % size);
  }

  float sums[kOrbits][kOrder][NT][4] = {};
  __syncthreads();
#pragma unroll 1
  for (int i = 0; i < of_block.tiles; ++i) {
    const Tile<T> tile(p, of_block.share, i);
    const TileMap<T> x(p.x, x_numbers, tile, size), dy(p.dy, dy_numbers, tile, 1);
    x.stage(tile, of_block.block, size, wgrad_scale(p, of_block.bank, kOrder, true));
    dy.stage(tile, of_block.block, 1, wgrad_scale(p, of_block.bank, kOrder, false));
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
#pragma unroll 1
    for (int step = part(); step < kSteps; step += p.parts) {
      const T* const x_from = x_numbers + x.place(tile, lane / 8 % 2, step * kStep + lane % 8 + lane / 16 * 8);
      const T* const dy_from = dy_numbers + dy.place(tile, lane / 16, step * kStep + lane % 16);
      uint32_t y[kOrder][1][4];
#pragma unroll
      for (int g = 0; g < kOrder; ++g) ldmatrix_x4_trans(y[g][0], dy_from + g * p.dy.element_numbers());
      transform_tiles<T, Group>(y);
#pragma unroll
      for (int orbit = 0; orbit < kOrbits; ++orbit) {
        uint32_t planes[kOrder][1][4];
        const int4 shift = shifts[warp][orbit];
        ldmatrix_x4_trans(planes[0][0], x_from + shift.x);
        ldmatrix_x4_trans(planes[1][0], x_from + shift.y);
        ldmatrix_x4_trans(planes[2][0], x_from + shift.z);
        ldmatrix_x4_trans(planes[3][0], x_from + shift.w);
        transform_tiles<T, Group>(planes);
        for_each_index<kOrder>([&](auto y_plane) {
          for_each_product_of_y<Group, decltype(y_plane)::value>([&](auto x_plane, auto w_plane, auto negated) {
            uint32_t a[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) a[i] = planes[x_plane][0][i] ^ (negated ? Operand<T>::kSigns : 0);
#pragma unroll
            for (int n = 0; n < NT; ++n) {
              const uint32_t b[2] = {y[y_plane][0][2 * n], y[y_plane][0][2 * n + 1]};
              mma_m16n8k16<T>(sums[orbit][w_plane][n], a, b);
            }
          });
        });
      }
    }
    __syncthreads();  // all are through with the tile
  }

  // The parts are added in their order.
  constexpr int kNumbers = kOrbits * kOrder * NT * 4;
  float* const others = reinterpret_cast<float*>(shared) + group() * kNumbers * 32 + lane;
#pragma unroll 1
  for (int other = 1; other < p.parts; ++other) {
    __syncthreads();
    if (part() == other) {
#pragma unroll
      for (int i = 0; i < kNumbers; ++i)
        others[i * 32] = sums[i / 4 / NT / kOrder][i / 4 / NT % kOrder][i / 4 % NT][i % 4];
    }
    __syncthreads();
    if (part() == 0) {
#pragma unroll
      for (int i = 0; i < kNumbers; ++i)
        sums[i / 4 / NT / kOrder][i / 4 / NT % kOrder][i / 4 % NT][i % 4] += others[i * 32];
    }
  }
  if (part() > 0) return;
#pragma unroll
  for (int orbit = 0; orbit < kOrbits; ++orbit) {
    const int tap = group() * kOrbits + orbit;
    if (tap >= taps) return;
#pragma unroll
    for (int i = 0; i < 4 * NT; ++i) {
      float f[1][kOrder];
#pragma unroll
      for (int plane = 0; plane < kOrder; ++plane) f[0][plane] = sums[orbit][plane][i / 4][i % 4];
      store_gradients<Group>(result, {tap, 0, 0, of_block.block, of_block.bank, of_block.share, true}, tap,
                             i % 4 / 2 * 8 + lane / 4, i / 4 * 8 + lane % 4 * 2 + i % 2, f);
    }
  }
}

template <typename T, typename Group, int NT>
cudaError_t launch_tiles(const IrrepWgradParams& params, const WgradPlan& plan, cudaStream_t stream) {
  const Problem<T> p(params, plan);
  const int64_t blocks = wgrad_blocks(params, plan);
  if (blocks > INT32_MAX) return cudaErrorInvalidValue;
  // The sums of a part, where there are several, take the place of the maps.
  const int64_t sums = p.parts > 1 ? p.groups.value * 32 * kOrbits * kOrder * NT * 4 * sizeof(float) : 0;
  const int bytes = static_cast<int>(std::max(p.shared_bytes(), sums));
  const auto kernel = irrep_wgrad_staged_kernel<T, Group, NT>;
  if (bytes + kStaticBytes > kUnaskedSharedBytes)
    if (const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes))
      return error;
  LAUNCH(kernel, static_cast<unsigned>(blocks), 32 * plan.warps, bytes, stream, p);
  return cudaGetLastError();
}

template <typename T>
cudaError_t launch(const IrrepWgradParams& params, const WgradPlan& plan, cudaStream_t stream) {
  const bool narrow = params.shape.out_fields <= 8;
  if (params.shape.group->name == "C4")
    return narrow ? launch_tiles<T, GroupC4, 1>(params, plan, stream)
                  : launch_tiles<T, GroupC4, 2>(params, plan, stream);
  return narrow ? launch_tiles<T, GroupD2, 1>(params, plan, stream) : launch_tiles<T, GroupD2, 2>(params, plan, stream);
}

}  // namespace

bool irrep_wgrad_staged_takes(const IrrepWgradParams& params) {
  const ConvShape& s = params.shape;
  if (s.order() != kOrder || (params.type != ScalarType::BFloat16 && params.type != ScalarType::Float16)) return false;
  if (s.lifting || s.in_fields > kStagedFields || s.out_fields > kStagedFields || !is_simple(s.rows) ||
      !is_simple(s.columns) || s.batch == 0 || !positions_fit(s) || staged_orbit_groups(s) > kMostWarps)
    return false;
  const Problem<__half> p(params, {});
  return p.shared_bytes() + kStaticBytes <= kMostSharedBytes && p.x.fits() && p.dy.fits();
}

cudaError_t irrep_wgrad_staged(const IrrepWgradParams& params, const WgradPlan& plan, cudaStream_t stream) {
  return params.type == ScalarType::BFloat16 ? launch<__nv_bfloat16>(params, plan, stream)
                                             : launch<__half>(params, plan, stream);
}

}  // namespace gconv::cuda
