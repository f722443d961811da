#include "irrep_fprop_mma.h"
#include "irrep_fprop_simt.h"
#include "irrep_fprop_wgmma.h"
#include "irrep_weight.h"
#include "padded_map.h"
#include "wgmma_choice.h"

namespace gconv::cuda {
namespace {

constexpr int kThreads = 256;

// Of ψ, seen as an fprop: in_fields and out_fields are those of the result's layout even where ψ is read as its
// adjoint.
struct Bank {
  PointGroup group;
  int64_t in_fields, out_fields, pitch, orbits;  // pitch: of a row of out fields in the result
  WeightPair pair;
};

// The first tap of that orbit of taps.
__device__ int first_tap(const Bank& bank, int64_t orbit) {
  for (int tap = 0;; ++tap) {
    bool first = true;
    for (int g = 0; g < bank.group.order; ++g) first &= moved_tap(bank.group.matrices[g], tap, bank.pair.size) >= tap;
    if (first && orbit-- == 0) return tap;
  }
}

// A thread the |P| planes of one (bank and block, orbit, in field, place in a row of out fields).
template <typename T, typename Fourier>
__global__ void __launch_bounds__(kThreads)
    irrep_transform_weight_kernel(const __grid_constant__ Bank bank, const T* weight, T* transformed, int64_t numbers) {
  constexpr int order = Fourier::table.order;
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= numbers) return;
  const int64_t plane = bank.in_fields * bank.pitch, place = i % plane, orbit = i / plane % bank.orbits;
  const int64_t in = place / bank.pitch, out = place % bank.pitch, block = i / plane / bank.orbits;
  const int tap = bank.pair.lifting ? first_tap(bank, orbit) : static_cast<int>(orbit);
  const int64_t weight_pair = block * bank.in_fields * bank.out_fields +
                              (bank.pair.adjoint ? in * bank.out_fields + out : out * bank.in_fields + in);
  int positions[order];
  for_each_index<order>([&](auto g) {
    const int moved = moved_tap(bank.group.matrices[g], tap, bank.pair.size);
    positions[g] = bank.pair.position(g, bank.group.inverse[g], moved, tap);
  });
  accumulate_t<T> planes[order] = {};
  if (out < bank.out_fields)
    transform_weight<Fourier>(
        weight + weight_pair * bank.pair.numbers(order), bank.pair.lifting, [&](auto g) { return positions[g]; },
        planes);
  T* to = transformed + (i / plane * order) * plane + place;
  for_each_index<order>([&](auto k) { to[k * plane] = narrow<T>(planes[k]); });
}

int64_t orbit_count(const ConvShape& shape) {
  if (!shape.lifting) return shape.taps();
  return static_cast<int64_t>(orbits(shape).size());
}

int number_bytes(ScalarType type) { return type == ScalarType::Float64 ? 8 : type == ScalarType::Float32 ? 4 : 2; }

// Whether every block of threads transforms the part of ψ that it multiplies by, and the layer is one launch, or
// irrep_transform_weight transforms it once for all. By arithmetic, not measured: a number costs a block 10 to 20
// instructions, so that 2^15 numbers keep a multiprocessor busy for 2 or 3 µs, which is what a launch more takes. A block
// makes 128 pixels, or 64 of 8 elements; an H200 has 132 multiprocessors.
bool is_small(const IrrepFpropParams& p) {
  const ConvShape& s = p.shape;
  const WeightPair pair{s.size, s.lifting, p.adjoint};
  const int64_t pairs = p.banks * s.in_fields * s.out_fields, order = s.order();
  const int64_t pair_bytes = int64_t{weight_pitch(pair.numbers(order), number_bytes(p.type))} * number_bytes(p.type);
  if (pairs * pair_bytes + weight_note_bytes(s) > kMostWeightBytes) return false;
  const int64_t pixels = s.batch * s.rows.out * s.columns.out, block_pixels = order == 8 ? 64 : 128;
  const int64_t blocks = s.groups * ((pixels + block_pixels - 1) / block_pixels);
  return (blocks + 131) / 132 * orbit_count(s) * order * pairs <= 1 << 15;
}

bool transforms_in_blocks(const IrrepFpropParams& p) { return !p.transformed_weight && is_small(p); }

// By arithmetic, not measured: 16 output fields or fewer would leave half of wgmma's columns empty. Small layers are left
// out even if their transformed weights are there already, for the bits of the result must not tell.
bool takes_wgmma(const IrrepFpropParams& p, const void* transformed) {
  return p.shape.out_fields > 16 && !is_small(p) && wgmma_allowed() && irrep_fprop_wgmma_takes(p, transformed);
}

// The layer with a copy of x and rows of Ψ̂ that wgmma's kernel can read.
IrrepFpropParams with_padded_x(IrrepFpropParams p, void* x) {
  p.x = x, p.x_strides = padded_x(p.shape).strides(), p.x_fields = padded_fields(p.shape.in_fields);
  p.x_activated = nullptr;
  p.transformed_weight = nullptr, p.transformed_pitch = padded_fields(p.shape.out_fields);
  return p;
}

// Whether x is copied so that wgmma takes it: where it is masked, or its fields are not in vectors. By arithmetic, not
// measured: of 1 × 1 taps, and of few fields, the copy would take longer than it saves.
bool pads(const IrrepFpropParams& p) {
  const ConvShape& s = p.shape;
  if (number_bytes(p.type) != 2 || s.groups != 1 || s.size == 1 || s.in_fields <= 16 || !padded_x(s).fits())
    return false;
  static const uint4 aligned{};
  const void* transformed = p.transformed_weight ? p.transformed_weight : &aligned;
  return !takes_wgmma(p, transformed) && takes_wgmma(with_padded_x(p, const_cast<uint4*>(&aligned)), &aligned);
}

template <typename T>
cudaError_t irrep_fprop_16bit(const IrrepFpropParams& p, const void* transformed, cudaStream_t stream) {
  return takes_wgmma(p, transformed) ? irrep_fprop_wgmma<T>(p, transformed, stream)
                                     : irrep_fprop_mma<T>(p, transformed, stream);
}

}  // namespace

int64_t irrep_transformed_numbers(const IrrepFpropParams& p) {
  return p.banks * p.shape.groups * orbit_count(p.shape) * p.shape.order() * p.shape.in_fields * transformed_pitch(p);
}

cudaError_t irrep_transform_weight(const IrrepFpropParams& p, void* transformed, cudaStream_t stream) {
  const ConvShape& s = p.shape;
  const WeightPair pair{s.size, s.lifting, p.adjoint};
  const Bank bank{*s.group, s.in_fields, s.out_fields, transformed_pitch(p), orbit_count(s), pair};
  const int64_t numbers = irrep_transformed_numbers(p) / s.order();
  return with_fourier_table(s.group->name, [&](auto fourier_of_group) {
    return dispatch(p.type, [&](auto number) {
      using T = decltype(number);
      using Fourier = decltype(fourier_of_group);
      LAUNCH((irrep_transform_weight_kernel<T, Fourier>), static_cast<unsigned>((numbers + kThreads - 1) / kThreads),
             kThreads, 0, stream, bank, static_cast<const T*>(p.weight), static_cast<T*>(transformed), numbers);
      return cudaGetLastError();
    });
  });
}

int64_t irrep_fprop_workspace(const IrrepFpropParams& p) {
  if (pads(p))
    return padded_x(p.shape).bytes() + irrep_transformed_numbers(with_padded_x(p, nullptr)) * number_bytes(p.type);
  return p.transformed_weight || transforms_in_blocks(p) ? 0 : irrep_transformed_numbers(p) * number_bytes(p.type);
}

cudaError_t irrep_fprop(const IrrepFpropParams& p, cudaStream_t stream) {
  if (p.shape.batch == 0) return cudaSuccess;
  if (pads(p)) {
    const IrrepFpropParams padded = with_padded_x(p, p.workspace);
    void* const of_padded = static_cast<char*>(p.workspace) + padded_x(p.shape).bytes();
    if (const cudaError_t error =
            pad_map(p.type, padded_x(p.shape), p.x, p.x_activated, p.x_strides, p.workspace, stream))
      return error;
    if (const cudaError_t error = irrep_transform_weight(padded, of_padded, stream)) return error;
    return p.type == ScalarType::BFloat16 ? irrep_fprop_16bit<__nv_bfloat16>(padded, of_padded, stream)
                                          : irrep_fprop_16bit<__half>(padded, of_padded, stream);
  }
  const void* transformed = p.transformed_weight;  // nullptr: the blocks transform p.weight
  if (!transformed && !transforms_in_blocks(p)) {
    if (const cudaError_t error = irrep_transform_weight(p, p.workspace, stream)) return error;
    transformed = p.workspace;
  }
  switch (p.type) {
    case ScalarType::BFloat16: return irrep_fprop_16bit<__nv_bfloat16>(p, transformed, stream);
    case ScalarType::Float16: return irrep_fprop_16bit<__half>(p, transformed, stream);
    case ScalarType::Float32:
      if (p.tf32) return irrep_fprop_mma<float>(p, transformed, stream);
      [[fallthrough]];
    case ScalarType::Float64: return irrep_fprop_simt(p, transformed, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace gconv::cuda
