// Ψ̂ of a step in shared memory, for the products of mma with the planes of x: copied from device memory, or transformed
// from ψ.
#pragma once

#include "fourier.h"
#include "irrep_fprop_steps.h"
#include "mma_operand.h"

namespace gconv::cuda {
namespace {

constexpr int kWarps = 4, kThreads = 32 * kWarps;

// [plane][field][out field], Width numbers at once, cut to `fields` and `columns`.
template <int Width, int Planes, int TileColumns, int Pitch, typename T>
__device__ __forceinline__ void copy_filter(const Problem<T>& p, const T* from, int fields, int columns, T* to) {
  constexpr int kFields = Operand<T>::kFields, kChunks = TileColumns / Width, kRows = kThreads / kChunks;
  const unsigned first = threadIdx.x / kChunks, column = threadIdx.x % kChunks * Width;
#pragma unroll
  for (unsigned i = 0; i < Planes * kFields; i += kRows) {
    const unsigned row = i + first, field = row % kFields;
    if (kRows > Planes * kFields && row >= Planes * kFields) break;
    const bool valid = static_cast<int>(field) < fields && static_cast<int>(column) < columns;
    const T* source = from + int64_t{static_cast<int>(row / kFields * p.in_fields + field)} * p.out_fields + column;
    T* target = to + (row - field + Operand<T>::place(field)) * Pitch + column;
    if constexpr (Width * sizeof(T) == 16)
      cp_async_16(target, source, valid);
    else if constexpr (Width * sizeof(T) == 4)
      cp_async_4(target, source, valid);
    else
      *target = valid ? *source : narrow<T>(0);
  }
}

// For NT · 8 out fields.
template <typename T, typename Group, int NT>
struct MmaFilter {
  static constexpr int order = Group::table.order, kFields = Operand<T>::kFields, kColumns = 8 * NT,
                       kPitch = 8 * (NT | 1);  // an odd number of units, against bank conflicts
  using Filter = T[order][kFields][kPitch];
  using Walk = Steps<T, Group, kFields, false>;

  const Problem<T>& p;
  const Place& place;

  __device__ MmaFilter(const Problem<T>& p, const Place& place) : p(p), place(place) {}

  // ψ as `transform` reads it.
  __device__ void fetch(T* weight) const {
    p.weight.fetch(place.block, place.first_out, columns(), weight);
    cp_async_wait<0>();
    __syncthreads();
  }
  __device__ __forceinline__ void make(const Walk& step, const T* weight, Filter& to) const {
    p.weight.numbers ? transform_filter(step, weight, to) : copy(step, to);
  }

  template <int MT>
  __device__ static void multiply(const uint32_t (&x)[order][MT][4], const Filter& filter,
                                  float (&sums)[order][MT][NT][4]) {
    uint32_t b[order][NT][2];
    for_each_product<Group>([&](auto y, auto from, auto w, auto negated) {
      if constexpr (is_first_of_filter({y, from, w, negated})) load_filter(filter[w], b[w]);
#pragma unroll
      for (int m = 0; m < MT; ++m) {
        uint32_t a[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) a[i] = x[from][m][i] ^ (negated ? Operand<T>::kSigns : 0);
#pragma unroll
        for (int n = 0; n < NT; ++n) Operand<T>::multiply(sums[y][m][n], a, b[w][n]);
      }
    });
  }

 private:
  __device__ void copy(const Walk& step, Filter& to) const {
    const int64_t planes = ((int64_t{step.bank} * p.groups + place.block) * p.orbits + step.orbit) * order;
    const T* from = p.transformed + (planes * p.in_fields + step.field) * p.out_fields + place.first_out;
    const int fields = p.in_fields - step.field, columns = p.out_fields - place.first_out;
    constexpr int kMost = 16 / sizeof(T), kWord = 4 / sizeof(T);
    if (p.filter_width == kMost)
      copy_filter<kMost, order, kColumns, kPitch>(p, from, fields, columns, &to[0][0][0]);
    else if (p.filter_width == kWord)
      copy_filter<kWord, order, kColumns, kPitch>(p, from, fields, columns, &to[0][0][0]);
    else if constexpr (kWord > 1)
      copy_filter<1, order, kColumns, kPitch>(p, from, fields, columns, &to[0][0][0]);
  }

  __device__ int columns() const { return min(kColumns, p.out_fields - place.first_out); }

  // The same of ψ in shared memory.
  __device__ void transform_filter(const Walk& step, const T* weight, Filter& to) const {
    int positions[order];
    for_each_index<order>([&](auto g) {
      const Tap to_tap = moved<Group, decltype(g)::value>(step.tap, p.size);
      positions[g] =
          p.weight.pair.position(g, Group::group.inverse[g], to_tap.row * p.size + to_tap.column, step.tap_number());
    });
    for (int i = threadIdx.x; i < kFields * kColumns; i += kThreads) {
      const int field = i / kColumns, in = step.field + field, column = i % kColumns;
      accumulate_t<T> planes[order] = {};
      if (in < p.in_fields && column < columns())
        transform_weight<Group>(
            p.weight.fetched(weight, step.bank, in, column, columns()), p.lifting, [&](auto g) { return positions[g]; },
            planes);
      for_each_index<order>(
          [&](auto plane) { to[plane][Operand<T>::place(field)][column] = narrow<T>(planes[plane]); });
    }
  }

  // Whether no product before has the same plane of Ψ̂.
  static constexpr bool is_first_of_filter(Product product) {
    for (const Product& term : products<Group>())
      if (term.w == product.w) return term.y == product.y && term.x == product.x;
    return false;
  }

  __device__ static void load_filter(const T (&plane)[kFields][kPitch], uint32_t (&b)[NT][2]) {
    const int lane = threadIdx.x % 32;
    if constexpr (sizeof(T) == 4) {
#pragma unroll
      for (int i = 0; i < 2 * NT; ++i) b[i / 2][i % 2] = tf32(plane[i % 2 * 4 + lane % 4][i / 2 * 8 + lane / 4]);
    } else if constexpr (NT == 1) {
      ldmatrix_x2_trans(b[0], plane[lane % 16]);
    } else {
#pragma unroll
      for (int pair = 0; pair < NT / 2; ++pair) {
        uint32_t both[4];
        ldmatrix_x4_trans(both, plane[lane % 16] + (2 * pair + lane / 16) * 8);
#pragma unroll
        for (int i = 0; i < 4; ++i) b[2 * pair + i / 2][i % 2] = both[i];
      }
    }
  }
};

}  // namespace
}  // namespace gconv::cuda
