#include "padded_map.h"

#include "map_chunks.h"

namespace gconv::cuda {
namespace {

constexpr int kThreads = 256;

template <typename T>
struct Problem {
  Map<T> map;
  unsigned tiles;  // blocks of threads for one plane
  int elements;
  Divisor chunks, columns, pixels;  // of a pixel, of a row, of a plane
  uint4* to;
};

template <typename T>
__global__ void __launch_bounds__(kThreads) pad_map_kernel(const __grid_constant__ Problem<T> p) {
  const int64_t plane = blockIdx.x / p.tiles;
  const int item = static_cast<int>(blockIdx.x % p.tiles * kThreads + threadIdx.x);
  if (item >= p.pixels.value * p.chunks.value) return;
  // Neighbouring threads take what lies side by side in the map.
  const int outer = (p.map.in_rows ? p.pixels : p.chunks).quotient(item);
  const int inner = item - outer * (p.map.in_rows ? p.pixels : p.chunks).value;
  const int pixel = p.map.in_rows ? inner : outer, chunk = p.map.in_rows ? outer : inner;
  const int row = p.columns.quotient(pixel), column = pixel - row * p.columns.value;
  const MapStrides& strides = p.map.strides;
  const int64_t offset = plane / p.elements * strides.batch + plane % p.elements * strides.element + row * strides.row +
                         column * strides.column;
  uint4 numbers = p.map.read(p.map.data, offset, chunk * kChunk<T>);
  if (p.map.activated) numbers = masked<T>(numbers, p.map.read(p.map.activated, offset, chunk * kChunk<T>));
  p.to[(plane * p.pixels.value + pixel) * p.chunks.value + chunk] = numbers;
}

template <typename T>
cudaError_t launch(const PaddedMap& padded, const void* map, const void* activated, const MapStrides& strides, void* to,
                   cudaStream_t stream) {
  Axis rows, columns;
  rows.in = padded.rows, columns.in = padded.columns;
  const int64_t pixels = padded.rows * padded.columns, chunks = padded_fields(padded.fields) / kChunk<T>;
  const int64_t planes = padded.batch * padded.elements, tiles = (pixels * chunks + kThreads - 1) / kThreads;
  if (!padded.fits()) return cudaErrorInvalidValue;
  if (!planes || !pixels) return cudaSuccess;
  const Problem<T> problem{Map<T>(map, activated, strides, padded.fields, rows, columns),
                           static_cast<unsigned>(tiles),
                           static_cast<int>(padded.elements),
                           Divisor(chunks),
                           Divisor(padded.columns),
                           Divisor(pixels),
                           static_cast<uint4*>(to)};
  LAUNCH(pad_map_kernel<T>, static_cast<unsigned>(planes * tiles), kThreads, 0, stream, problem);
  return cudaGetLastError();
}

}  // namespace

cudaError_t pad_map(ScalarType type, const PaddedMap& padded, const void* map, const void* activated,
                    const MapStrides& strides, void* to, cudaStream_t stream) {
  return type == ScalarType::BFloat16 ? launch<__nv_bfloat16>(padded, map, activated, strides, to, stream)
                                      : launch<__half>(padded, map, activated, strides, to, stream);
}

}  // namespace gconv::cuda
