// Where a thread finds what its pixels read of x for one tap: found once for all fields, since finding it takes as long as
// some of the products.
#pragma once

#include <type_traits>

#include "irrep_fprop_steps.h"

namespace gconv::cuda {
namespace {

// Offset: int where offsets_fit, else int64_t. kAllTaps: as of Steps.
template <typename T, typename Group, int Pixels, typename Offset, bool kAllTaps>
struct TapReads {
  static constexpr int order = Group::table.order;
  static_assert(order * Pixels <= 32);

  const T* from[Pixels];  // element 0 of what tap (0, 0) would read without padding
  int row_at[Pixels], column_at[Pixels];
  Offset offset[order] = {};  // from there, of the tap
  uint32_t inside = 0;        // bit g · Pixels + pixel

  // index(i): of the thread's pixel i in the tile. first_field: of those that the thread reads.
  template <typename Index>
  __device__ TapReads(const Problem<T>& p, const Place& place, int first_field, Index index) {
#pragma unroll
    for (int i = 0; i < Pixels; ++i) {
      const Pixel pixel = place.pixel(index(i));
      const int row = pixel.row * p.rows.stride;
      row_at[i] = pixel.image < p.batch ? row : kNowhere;
      column_at[i] = pixel.column * p.columns.stride;
      from[i] =
          unknown(p.x + pixel.image * p.x_strides.batch + row * p.x_strides.row + column_at[i] * p.x_strides.column +
                  (int64_t{place.block} * p.in_fields + first_field) * p.x_strides.field);
    }
  }

  __device__ __forceinline__ void find(const Problem<T>& p, const Place& place, Tap tap) {
    const Reads<kAllTaps> reads(p, place, tap);
    inside = 0;
    for_each_index<order>([&](auto g) {
      constexpr int element = g;
      const int row = reads.template row<Group, element>(), column = reads.template column<Group, element>();
      // Without a sign: what nobody reads may overflow.
      using Unsigned = std::make_unsigned_t<Offset>;
      const MapStrides& strides = p.x_strides;
      offset[g] = static_cast<Offset>(static_cast<Unsigned>(strides.element) * element +
                                      static_cast<Unsigned>(strides.row) * static_cast<Unsigned>(row) +
                                      static_cast<Unsigned>(strides.column) * static_cast<Unsigned>(column));
#pragma unroll
      for (int i = 0; i < Pixels; ++i)
        if (static_cast<unsigned>(row_at[i] + row) < static_cast<unsigned>(p.rows.in) &&
            static_cast<unsigned>(column_at[i] + column) < static_cast<unsigned>(p.columns.in))
          inside |= 1u << (g * Pixels + i);
    });
  }

  __device__ bool counts(int g, int pixel) const { return inside >> (g * Pixels + pixel) & 1; }

 private:
  // The address as one that the compiler has not seen before, so that it does not take it apart in every step.
  __device__ static const T* unknown(const T* address) {
#ifdef __CUDACC__
    asm volatile("" : "+l"(address));
#endif
    return address;
  }
};

}  // namespace
}  // namespace gconv::cuda
