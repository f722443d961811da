// What a block of threads of irrep_fprop_mma reads, step by step.
#pragma once

#include "conv_place.h"
#include "fourier.h"
#include "irrep.h"
#include "irrep_groups.h"
#include "irrep_weight.h"

namespace gconv::cuda {
namespace {

template <typename T>
struct Problem {
  Problem(const IrrepFpropParams& params, const void* transformed)
      : rows(params.shape.rows), columns(params.shape.columns), weight(weight_of<T>(params, transformed)) {}
  Line rows, columns;
  MapStrides x_strides, y_strides;
  int64_t batch;
  int groups, banks, in_fields, out_fields, size, orbits;
  bool lifting, relax_input, relu, masked;
  int x_width, filter_width, y_width;  // numbers that are read, copied and written at once
  unsigned column_tiles;
  int64_t mask_offset = 0;  // from a number of x to that of x_activated
  const T *x, *transformed, *relaxed_weight, *bias;
  T* y;
  Weight<T> weight;
};

// first_read in both directions for the tap and its images under the group: (row, column) of the moved tap is one of
// these rows and one of these columns.
struct Reads {
  int rows[4], columns[4];

  template <typename T>
  __device__ Reads(const Problem<T>& p, const Place& place, int tap) {
    const int row = tap / p.size, column = tap % p.size, last = p.size - 1;
    const int moved[4] = {row, last - row, column, last - column};
    for_each_index<4>([&](auto i) {
      rows[i] = p.rows.first_read(place.row_phase, moved[i]);
      columns[i] = p.columns.first_read(place.column_phase, moved[i]);
    });
  }
  template <typename Group, int G>
  __device__ int row() const {
    constexpr Matrix g = Group::group.matrices[G];
    return rows[g.rr ? g.rr < 0 : 2 + (g.rc < 0)];
  }
  template <typename Group, int G>
  __device__ int column() const {
    constexpr Matrix g = Group::group.matrices[G];
    return columns[g.cr ? g.cr < 0 : 2 + (g.cc < 0)];
  }
};

// Goes through the steps of the inner dimension: bank, orbit, block of input fields.
template <typename T, typename Group, int kFields>
struct Steps {
  const Problem<T>& p;
  const Place& place;
  int bank = 0, tap = 0, orbit = 0, field = 0;

  __device__ Steps(const Problem<T>& p, const Place& place) : p(p), place(place) {
    skip();
    if (tap == p.size * p.size) bank = p.banks;
  }
  __device__ bool more() const { return bank < p.banks; }
  __device__ void advance() {
    field += kFields;
    if (field < p.in_fields) return;
    field = 0, ++tap, ++orbit;
    skip();
    if (tap < p.size * p.size) return;
    ++bank, tap = orbit = 0;
    skip();
  }

 private:
  // To the next tap that starts an orbit and reads more than zeros.
  __device__ void skip() {
    while (tap < p.size * p.size && !counts()) ++tap;
    if (!p.lifting) orbit = tap;
  }
  __device__ bool counts() const {
    if (p.lifting) {
      bool first = true;
      for_each_index<Group::table.order>([&](auto g) {
        constexpr Matrix matrix = Group::group.matrices[g];
        first &= moved_tap(matrix, tap, p.size) >= tap;
      });
      return first;
    }
    if (p.rows.spread == 1 && p.columns.spread == 1) return true;
    const Reads reads(p, place, tap);
    bool any = false;
    for_each_index<Group::table.order>([&](auto g) {
      any |= reads.template row<Group, g>() != kNowhere && reads.template column<Group, g>() != kNowhere;
    });
    return any;
  }
};

}  // namespace
}  // namespace gconv::cuda
