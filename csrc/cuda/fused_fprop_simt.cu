#include "fused_fprop_simt.h"

#include "fused_fprop_kernel.h"
#include "fused_tiles.h"

namespace gconv::cuda {
namespace {

// The Tile of fused_fprop_kernel.h on the CUDA cores: a thread makes kRows pixels × 4 out fields of all elements. It
// reads x straight into registers; the threads that share a pixel read it together.
template <typename T, int Elements, int Units>
struct SimtTile {
  using Number = T;
  static constexpr int kFields = 4, kOutFields = 8 * Units, kMatrix = kFields * kOutFields;
  static constexpr int kSums = sizeof(T) == 8 ? 32 : 64;  // of a thread
  static constexpr int kRows = std::min(kSums / 8, kSums / 4 / Elements);
  static constexpr int kLanes = kOutFields / 4;  // that share a pixel
  static constexpr int kPixels = kThreads / kLanes * kRows;
  struct X {
    T x[kRows][kFields];
  };
  using Sums = T[Elements][kRows][4];
  struct alignas(16) Four {
    T at[4];
  };

  const T* from[kRows];
  int row_at[kRows], column_at[kRows];

  __device__ static int index(int i) {
    return (threadIdx.x / 32 * kRows + i) * (32 / kLanes) + threadIdx.x % 32 / kLanes;
  }
  __device__ static int first_out() { return threadIdx.x % kLanes * 4; }
  __device__ static int matrix_at(int field, int out) { return field * kOutFields + out; }
  __device__ static T number(T sum) { return sum; }

  __device__ SimtTile(const Problem<T>& p, const Place& place) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const Pixel pixel = place.pixel(index(i));
      const int row = pixel.row * p.rows.stride;
      row_at[i] = pixel.image < p.batch ? row : kNowhere;
      column_at[i] = pixel.column * p.columns.stride;
      from[i] = p.x + pixel.image * p.x_strides.batch + row * p.x_strides.row + column_at[i] * p.x_strides.column +
                int64_t{place.block} * p.in_fields * p.x_strides.field;
    }
  }

  __device__ __forceinline__ void load(const Problem<T>& p, const Read& read, int field, int64_t field_offset,
                                       X& x) const {
    const int64_t offset = read.offset + field_offset;
    load(p, offset, read, field, x);
    if (!p.masked) return;
    X activated;
    load(p, offset + p.mask_offset, read, field, activated);
#pragma unroll
    for (int i = 0; i < kRows * kFields; ++i)
      if (activated.x[i / kFields][i % kFields] <= 0) x.x[i / kFields][i % kFields] = 0;
  }

  __device__ __forceinline__ static void multiply(const X& x, const T* matrices, const uint8_t (&slots)[kMaxOrder],
                                                  Sums& sums) {
#pragma unroll
    for (int k = 0; k < kFields; ++k)
#pragma unroll
      for (int u = 0; u < Elements; ++u) {
        const Four filter =
            *reinterpret_cast<const Four*>(matrices + slots[u] * kMatrix + k * kOutFields + first_out());
#pragma unroll
        for (int i = 0; i < kRows; ++i)
#pragma unroll
          for (int j = 0; j < 4; ++j) sums[u][i][j] += x.x[i][k] * filter.at[j];
      }
  }

  __device__ __forceinline__ static void store(const Problem<T>& p, const Place& place, const Sums& sums) {
    const int field = place.first_out + first_out(), fields = p.out_fields - field;
    if (fields <= 0) return;
    const int64_t channel = int64_t{place.block} * p.out_fields + field;
    T bias[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) bias[j] = p.bias && j < fields ? p.bias[channel + j] : T{0};
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const Pixel pixel = place.pixel(index(i));
      if (pixel.image >= p.batch) return;
      const int64_t row = int64_t{pixel.row} * p.rows.spread + place.row_phase;
      const int64_t column = int64_t{pixel.column} * p.columns.spread + place.column_phase;
      T* const to = p.y + pixel.image * p.y_strides.batch + row * p.y_strides.row + column * p.y_strides.column +
                    channel * p.y_strides.field;
#pragma unroll
      for (int u = 0; u < Elements; ++u) {
        Four y;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const T value = sums[u][i][j] + bias[j];
          y.at[j] = p.relu && value < 0 ? T{0} : value;  // NaN stays
        }
        T* const at = to + u * p.y_strides.element;
        if (p.y_width == 4) {
          *reinterpret_cast<Four*>(at) = y;
        } else {
#pragma unroll
          for (int j = 0; j < 4; ++j)
            if (j < fields) at[j * p.y_strides.field] = y.at[j];
        }
      }
    }
  }

 private:
  __device__ __forceinline__ void load(const Problem<T>& p, int64_t offset, const Read& read, int field, X& x) const {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const bool inside = static_cast<unsigned>(row_at[i] + read.row) < static_cast<unsigned>(p.rows.in) &&
                          static_cast<unsigned>(column_at[i] + read.column) < static_cast<unsigned>(p.columns.in);
      const T* const at = from[i] + offset;
      if (p.x_width == kFields) {
        const Four four = inside ? *reinterpret_cast<const Four*>(at) : Four{};
#pragma unroll
        for (int k = 0; k < kFields; ++k) x.x[i][k] = four.at[k];
      } else {
#pragma unroll
        for (int k = 0; k < kFields; ++k)
          x.x[i][k] = inside && field + k < p.in_fields ? at[k * p.x_strides.field] : T{0};
      }
    }
  }
};

template <typename T>
cudaError_t launch(const FusedFpropParams& params, cudaStream_t stream) {
  if (!coordinates_fit(params.shape)) return cudaErrorNotSupported;
  Problem<T> p(params);
  p.x_width = map_width<T>(params.x, params.x_strides, p.in_fields, 4) == 4 ? 4 : 1;
  if (params.x_activated && map_width<T>(params.x_activated, params.x_strides, p.in_fields, 4) < 4) p.x_width = 1;
  p.y_width = map_width<T>(params.y, params.y_strides, p.out_fields, 4);
  return with_simt_tile(params, [&](auto elements, auto units) {
    using Tile = SimtTile<T, elements, units>;
    if constexpr (elements > 1)
      if (p.forms > 1) return launch_fused_fprop<Tile, elements>(p, stream);
    return launch_fused_fprop<Tile, 1>(p, stream);
  });
}

}  // namespace

cudaError_t fused_fprop_simt(const FusedFpropParams& params, cudaStream_t stream) {
  return params.type == ScalarType::Float64 ? launch<double>(params, stream) : launch<float>(params, stream);
}

}  // namespace gconv::cuda
