// What a block of threads of irrep_fprop_mma or irrep_fprop_wgmma reads, step by step.
#pragma once

#include <algorithm>

#include "conv_place.h"
#include "fourier.h"
#include "irrep.h"
#include "irrep_groups.h"
#include "irrep_weight.h"
#include "mma_operand.h"

namespace gconv::cuda {
namespace {

template <typename T>
struct Problem {
  Problem(const IrrepFpropParams& params, const void* transformed_weight)
      : Problem(params, params.shape, static_cast<const T*>(transformed_weight)) {}

  Line rows, columns;
  MapStrides x_strides, y_strides;
  int64_t batch;
  int groups, banks, in_fields, out_fields, size, orbits;
  bool lifting, relax_input, relu, masked;
  bool plain;  // x and y lie so that a thread's neighbours are one vector, and x counts as it is
  int x_width, filter_width, y_width;  // numbers that are read, copied and written at once
  int filter_pitch;
  unsigned column_tiles = 0;
  int64_t mask_offset = 0;  // from a number of x to that of x_activated
  const T *x, *transformed, *relaxed_weight, *bias;
  T* y;
  Weight<T> weight;

 private:
  Problem(const IrrepFpropParams& params, const ConvShape& s, const T* transformed)
      : rows(s.rows), columns(s.columns), x_strides(params.x_strides), y_strides(params.y_strides), batch(s.batch),
        groups(static_cast<int>(s.groups)), banks(static_cast<int>(params.banks)),
        in_fields(static_cast<int>(s.in_fields)), out_fields(static_cast<int>(s.out_fields)), size(s.size),
        orbits(static_cast<int>(s.lifting ? gconv::orbits(s).size() : s.taps())), lifting(s.lifting),
        relax_input(params.relax_input && params.relaxed_weight), relu(params.relu), masked(params.x_activated),
        x_width(map_width<T>(params.x, params.x_strides, readable_fields(params), Operand<T>::kNeighbours)),
        y_width(map_width<T>(params.y, params.y_strides, s.out_fields, 2)),
        filter_pitch(static_cast<int>(transformed_pitch(params))), x(static_cast<const T*>(params.x)),
        transformed(transformed), relaxed_weight(static_cast<const T*>(params.relaxed_weight)),
        bias(static_cast<const T*>(params.bias)), y(static_cast<T*>(params.y)),
        weight(weight_of<T>(params, transformed)) {
    if (masked) {
      mask_offset = offset_between<T>(params.x, params.x_activated);
      x_width =
          std::min(x_width, map_width<T>(params.x_activated, params.x_strides, s.in_fields, Operand<T>::kNeighbours));
    }
    plain = x_width == Operand<T>::kNeighbours && y_width == 2 && !masked && !relax_input &&
            offsets_fit(s, params.x_strides);
    constexpr int kMost = 16 / sizeof(T), kWord = 4 / sizeof(T);
    filter_width = static_cast<int>(widest(reinterpret_cast<uintptr_t>(transformed) / sizeof(T) | s.out_fields, kMost));
    if (filter_width < kMost) filter_width = std::min(filter_width, kWord);
  }
};

struct Tap {
  int row, column;
};

// Row and column of a moved tap are two of its row, the row from the other end, its column, the column from the other end.
constexpr int row_source(Matrix g) { return g.rr ? g.rr < 0 : 2 + (g.rc < 0); }
constexpr int column_source(Matrix g) { return g.cr ? g.cr < 0 : 2 + (g.cc < 0); }

template <typename Group, int G>
__device__ __forceinline__ Tap moved(Tap tap, int size) {
  const int sources[4] = {tap.row, size - 1 - tap.row, tap.column, size - 1 - tap.column};
  return {sources[row_source(Group::group.matrices[G])], sources[column_source(Group::group.matrices[G])]};
}

// first_read of a convolution without a spread (kAllTaps), or of any.
template <bool kAllTaps>
__device__ __forceinline__ int first_read(const Line& line, int phase, int tap) {
  return kAllTaps ? line.dilation * tap - line.padding : line.first_read(phase, tap);
}

// first_read in both directions for the tap and its images under the group.
template <bool kAllTaps>
struct Reads {
  int rows[4], columns[4];

  template <typename T>
  __device__ Reads(const Problem<T>& p, const Place& place, Tap tap) {
    const int last = p.size - 1, moved[4] = {tap.row, last - tap.row, tap.column, last - tap.column};
    for_each_index<4>([&](auto i) {
      rows[i] = first_read<kAllTaps>(p.rows, place.row_phase, moved[i]);
      columns[i] = first_read<kAllTaps>(p.columns, place.column_phase, moved[i]);
    });
  }
  template <typename Group, int G>
  __device__ int row() const {
    return rows[row_source(Group::group.matrices[G])];
  }
  template <typename Group, int G>
  __device__ int column() const {
    return columns[column_source(Group::group.matrices[G])];
  }
};

// Goes through the steps of the inner dimension: bank, block of input fields, orbit, two steps of kFields fields. All orbits
// of a block of fields follow each other, so that what they read of x again and again fits into the first-level cache.
// kAllTaps: the convolution is neither lifting nor has a spread.
template <typename T, typename Group, int kFields, bool kAllTaps>
struct Steps {
  const Problem<T>& p;
  const Place& place;
  int bank = 0, block = 0, orbit = -1, field;  // the step; before the first one. block: its first field
  Tap tap{0, -1};

  __device__ Steps(const Problem<T>& p, const Place& place) : p(p), place(place), field(p.in_fields) {}

  // Whether there is another step.
  __device__ __forceinline__ bool next() {
    field += kFields;
    if (field < min(block + 2 * kFields, p.in_fields)) return true;
    do {  // to the next tap that starts an orbit and reads more than zeros
      if (++tap.column == p.size) tap.column = 0, ++tap.row;
      if (kAllTaps || !p.lifting) ++orbit;
      if (tap.row == p.size) {
        tap.row = 0, orbit = !kAllTaps && p.lifting ? -1 : 0, block += 2 * kFields;
        if (block >= p.in_fields) block = 0, ++bank;
      }
      if (bank >= p.banks) return false;
    } while (!counts());
    field = block, orbit += !kAllTaps && p.lifting;
    return true;
  }
  // Of the step: whether it is the first of its tap.
  __device__ bool is_first() const { return field == block; }
  __device__ int tap_number() const { return tap.row * p.size + tap.column; }

 private:
  __device__ __forceinline__ bool counts() const {
    if (kAllTaps) return true;
    if (p.lifting) {
      bool first = true;
      for_each_index<Group::table.order>([&](auto g) {
        constexpr Matrix matrix = Group::group.matrices[g];
        first &= moved_tap(matrix, tap_number(), p.size) >= tap_number();
      });
      return first;
    }
    if (p.rows.spread == 1 && p.columns.spread == 1) return true;
    const Reads<kAllTaps> reads(p, place, tap);
    bool any = false;
    for_each_index<Group::table.order>([&](auto g) {
      any |= reads.template row<Group, g>() != kNowhere && reads.template column<Group, g>() != kNowhere;
    });
    return any;
  }
};

}  // namespace
}  // namespace gconv::cuda
