#include "fourier.h"
#include "irrep.h"
#include "irrep_fprop_mma.h"
#include "irrep_fprop_simt.h"
#include "scalar_types.h"

namespace gconv::cuda {
namespace {

constexpr int kThreads = 256;

// Of ψ, seen as an fprop: in_fields and out_fields are those of the result's layout even where ψ is read as its
// adjoint.
struct Bank {
  PointGroup group;
  int64_t in_fields, out_fields, orbits;
  int size;
  bool lifting, adjoint;
};

// The first tap of that orbit of taps.
__device__ int first_tap(const Bank& bank, int64_t orbit) {
  for (int tap = 0;; ++tap) {
    bool first = true;
    for (int g = 0; g < bank.group.order; ++g) first &= moved_tap(bank.group.matrices[g], tap, bank.size) >= tap;
    if (first && orbit-- == 0) return tap;
  }
}

// A thread the |P| planes of one (bank and block, orbit, in field, out field).
template <typename T, typename Fourier>
__global__ void __launch_bounds__(kThreads)
    irrep_transform_weight_kernel(const __grid_constant__ Bank bank, const T* weight, T* transformed, int64_t numbers) {
  constexpr int order = Fourier::table.order;
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= numbers) return;
  const int64_t pairs = bank.in_fields * bank.out_fields, pair = i % pairs, orbit = i / pairs % bank.orbits;
  const int64_t in = pair / bank.out_fields, out = pair % bank.out_fields, block = i / pairs / bank.orbits;
  const int taps = bank.size * bank.size, numbers_of_pair = (bank.lifting ? 1 : order) * taps;
  const int tap = bank.lifting ? first_tap(bank, orbit) : static_cast<int>(orbit);
  const T* from = weight + (block * pairs + (bank.adjoint ? pair : out * bank.in_fields + in)) * numbers_of_pair;
  accumulate_t<T> planes[order];
  int stabiliser = 0;
  for_each_index<order>([&](auto g) {
    const int moved = moved_tap(bank.group.matrices[g], tap, bank.size);
    stabiliser += moved == tap;
    // The adjoint is ψ'[c, o, a, b] = ψ[o, c, a⁻¹, −a⁻¹b], and here b is a·tap.
    const int position = bank.lifting   ? moved
                         : bank.adjoint ? bank.group.inverse[g] * taps + taps - 1 - tap
                                        : g * taps + moved;
    planes[g] = widen(from[position]);
  });
  if (bank.lifting)  // a tap that several elements leave alone is met as often
    for_each_index<order>([&](auto g) { planes[g] /= stabiliser; });
  fourier<Fourier>(planes);
  T* to = transformed + (i / pairs * order) * pairs + pair;
  for_each_index<order>([&](auto plane) { to[plane * pairs] = narrow<T>(planes[plane]); });
}

int64_t orbit_count(const ConvShape& shape) {
  if (!shape.lifting) return shape.taps();
  return static_cast<int64_t>(orbits(shape).size());
}

int64_t number_bytes(ScalarType type) { return type == ScalarType::Float64 ? 8 : type == ScalarType::Float32 ? 4 : 2; }

}  // namespace

int64_t irrep_transformed_numbers(const IrrepFpropParams& p) {
  return p.banks * p.shape.groups * orbit_count(p.shape) * p.shape.order() * p.shape.in_fields * p.shape.out_fields;
}

cudaError_t irrep_transform_weight(const IrrepFpropParams& p, void* transformed, cudaStream_t stream) {
  const ConvShape& s = p.shape;
  const Bank bank{*s.group, s.in_fields, s.out_fields, orbit_count(s), s.size, s.lifting, p.adjoint};
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
  return p.transformed_weight ? 0 : irrep_transformed_numbers(p) * number_bytes(p.type);
}

cudaError_t irrep_fprop(const IrrepFpropParams& p, cudaStream_t stream) {
  if (p.shape.batch == 0) return cudaSuccess;
  if (!p.transformed_weight)
    if (const cudaError_t error = irrep_transform_weight(p, p.workspace, stream)) return error;
  const void* transformed = p.transformed_weight ? p.transformed_weight : p.workspace;
  switch (p.type) {
    case ScalarType::BFloat16: return irrep_fprop_mma<__nv_bfloat16>(p, transformed, stream);
    case ScalarType::Float16: return irrep_fprop_mma<__half>(p, transformed, stream);
    case ScalarType::Float32:
      if (p.tf32) return irrep_fprop_mma<float>(p, transformed, stream);
      [[fallthrough]];
    case ScalarType::Float64: return irrep_fprop_simt(p, transformed, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace gconv::cuda
