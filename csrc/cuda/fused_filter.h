// The filter of the fused dense form, step by step. A round of the inner dimension is a tap t and Tile::kFields input
// fields; its steps are the elements of x, each at a tap of its own that t is moved to, such that all matrices [in
// field, out field] of a round come from few positions of ψ:
//
//   group convolution      step v at v·t, for y's element u: ψ at (g, g·t), where g = u⁻¹v
//   its dgrad              the same of the adjoint ψ'(a, b) = ψ(a⁻¹, −a⁻¹b)
//   lifting convolution    one step, at t, for y's element u: ψ at u⁻¹t
//   its dgrad              step u at u·t: ψ at −t, whatever u
//
// A block holds the matrices of a round in shared memory: of a strict layer one for each position, its source; of a
// relaxed group convolution Σ_l w_l · ψ_l in as many forms as y has elements.
#pragma once

#include "conv_place.h"
#include "fused.h"
#include "scalar_types.h"

namespace gconv::cuda {
namespace {

constexpr int kWarps = 4, kThreads = 32 * kWarps;

// One position of ψ for each tap.
struct Source {
  Matrix matrix;
  int first;  // position of tap 0 of its element
};

template <typename T>
struct Problem {
  explicit Problem(const FusedFpropParams& params)
      : rows(params.shape.rows), columns(params.shape.columns), x_strides(params.x_strides),
        y_strides(params.y_strides), batch(params.shape.batch), groups(static_cast<int>(params.shape.groups)),
        banks(static_cast<int>(params.banks)), in_fields(static_cast<int>(params.shape.in_fields)),
        out_fields(static_cast<int>(params.shape.out_fields)), size(params.shape.size), relu(params.relu),
        x(static_cast<const T*>(params.x)), masked(params.x_activated), weight(static_cast<const T*>(params.weight)),
        relaxed_weight(static_cast<const T*>(params.relaxed_weight)), bias(static_cast<const T*>(params.bias)),
        y(static_cast<T*>(params.y)) {
    if (masked) mask_offset = offset_between<T>(x, params.x_activated);
    const ConvShape& s = params.shape;
    const PointGroup& group = *s.group;
    const int taps = size * size;
    order = group.order;
    numbers = (s.lifting ? 1 : order) * taps;
    in_stride = params.adjoint ? int64_t{out_fields} * numbers : numbers;
    out_stride = params.adjoint ? numbers : int64_t{in_fields} * numbers;
    constexpr Matrix same{1, 0, 0, 1}, opposite{-1, 0, 0, -1};
    const bool relaxed = params.relaxed_weight;
    const bool of_images = s.lifting && !params.adjoint, one_source = s.lifting && params.adjoint && !relaxed;
    while (!of_images && 1 << step_bits < order) ++step_bits;
    while (!one_source && 1 << source_bits < order) ++source_bits;
    forms = relaxed && !s.lifting ? order : 1;
    for (int i = 0; i < order; ++i) {
      const Matrix& moves = group.matrices[i];
      step_matrices[i] = of_images ? same : moves;
      this->sources[i] = params.adjoint ? Source{opposite, s.lifting ? 0 : group.inverse[i] * taps}
                         : s.lifting    ? Source{group.matrices[group.inverse[i]], 0}
                                        : Source{moves, i * taps};
      for (int u = 0; u < order; ++u) {
        // Form u of source i is that for y's element u. Without forms, the elements of a lifting layer are its sources.
        relaxed_elements[i][u] = s.lifting ? i : params.relax_input ? group.product[u][i] : u;
        const int source = one_source ? 0 : !s.lifting ? group.product[group.inverse[u]][i] : params.adjoint ? i : u;
        slots[i][u] = source * forms + (forms == 1 ? 0 : u);
      }
    }
  }

  Line rows, columns;
  MapStrides x_strides, y_strides;
  int64_t batch;
  int groups, banks, in_fields, out_fields, size;
  bool relu;
  const T* x;
  bool masked;
  int64_t mask_offset = 0;  // from a number of x to that of x_activated
  const T *weight, *relaxed_weight, *bias;
  T* y;
  int x_width = 1, y_width = 1;  // numbers that are read and written at once
  unsigned column_tiles = 1;

  int order, numbers;  // of one pair of fields
  int64_t in_stride, out_stride;
  int forms, step_bits = 0, source_bits = 0;  // of a round: 1 << step_bits steps, forms << source_bits matrices
  Matrix step_matrices[kMaxOrder];
  Source sources[kMaxOrder];
  uint8_t relaxed_elements[kMaxOrder][kMaxOrder];  // [source][form]
  uint8_t slots[kMaxOrder][kMaxOrder];             // [step][element of y]: the matrix
};

// Where a pixel reads in a step, from stride · its own position on, in memory and in pixels. kNowhere: no pixel reads
// anything but zeros.
struct alignas(16) Read {
  int64_t offset;
  int row, column;
};

// Goes through the steps that read more than zeros: first through the taps, so that the same fields of x are near.
template <typename T, int kFields>
struct Walk {
  const Problem<T>& p;
  const Read* reads;  // [tap][step]
  int count, index = -1, field = 0;
  int64_t field_offset = 0;
  Read read{0, kNowhere, kNowhere};

  __device__ Walk(const Problem<T>& p, const Read* reads) : p(p), reads(reads), count(p.size * p.size << p.step_bits) {
    advance();
  }
  __device__ bool more() const { return field < p.in_fields; }
  __device__ int step() const { return index & ((1 << p.step_bits) - 1); }
  __device__ int tap() const { return index >> p.step_bits; }
  // Whether the step after this one is of the same round.
  __device__ __forceinline__ bool advance() {
    bool same = true;
    do {
      if (++index == count) index = 0, field += kFields, field_offset += kFields * p.x_strides.field;
      same &= step() > 0;
      if (!more()) return false;
      read = reads[index];
    } while (read.row == kNowhere);
    return same;
  }
};

// What a block holds in shared memory: two rounds of matrices, and what makes them.
template <typename Tile, int Forms>
struct Filter {
  using T = typename Tile::Number;
  using Sum = accumulate_t<T>;
  static constexpr int kFields = Tile::kFields;
  static constexpr int kOuts = Forms > 1 ? 4 : 8, kBanks = Forms > 1 ? 2 : 1;  // that a thread reads at once
  static constexpr int kNearFields = kFields < 8 ? kFields : 8;                // of neighbouring threads

  struct alignas(std::min<size_t>(16, kOuts * sizeof(T))) Outs {
    T numbers[kOuts];
  };

  T* matrices;   // [2][source][form][Tile::kMatrix]
  Read* reads;   // [tap][step]
  Sum* relaxed;  // [bank][source][form]
  Source* sources;

  __device__ Filter(const Problem<T>& p, const Place& place, unsigned char* shared) {
    const int slots = Forms << p.source_bits, count = p.size * p.size << p.step_bits;
    matrices = reinterpret_cast<T*>(shared);
    reads = reinterpret_cast<Read*>(matrices + 2 * slots * Tile::kMatrix);
    relaxed = reinterpret_cast<Sum*>(reads + count);
    sources = reinterpret_cast<Source*>(relaxed + p.banks * slots);
    for (int i = threadIdx.x; i < p.banks * slots; i += kThreads) {
      const int slot = i % slots, bank = i / slots;
      const int element = p.relaxed_elements[slot / Forms][slot % Forms];
      relaxed[i] = p.relaxed_weight ? widen(p.relaxed_weight[bank * p.order + element]) : Sum{1};
    }
    if (threadIdx.x < 1u << p.source_bits) sources[threadIdx.x] = p.sources[threadIdx.x];
    for (int i = threadIdx.x; i < count; i += kThreads) {
      const int step = i & ((1 << p.step_bits) - 1), tap = moved_tap(p.step_matrices[step], i >> p.step_bits, p.size);
      const int row = p.rows.first_read(place.row_phase, tap / p.size);
      const int column = p.columns.first_read(place.column_phase, tap % p.size);
      const int64_t plane = p.step_bits ? step * p.x_strides.element : 0;
      const int64_t offset = plane + row * p.x_strides.row + column * p.x_strides.column;
      reads[i] = {offset, column == kNowhere ? kNowhere : row, column};
    }
  }
  static int64_t bytes(const Problem<T>& p) {
    const int64_t slots = Forms << p.source_bits;
    const int64_t reads = int64_t{p.size} * p.size << p.step_bits;
    return 2 * slots * Tile::kMatrix * sizeof(T) + reads * sizeof(Read) + p.banks * slots * sizeof(Sum) +
           (sizeof(Source) << p.source_bits);
  }

  __device__ T* buffer(int index, int source_bits) const {
    return matrices + (index * Forms * Tile::kMatrix << source_bits);
  }

  // The matrices of the round of that step.
  __device__ __forceinline__ void stage(const Problem<T>& p, const Place& place, const Walk<T, kFields>& round,
                                        T* to) const {
    constexpr int kTasks = kFields * Tile::kOutFields / kOuts;  // of a source
    const int64_t bank_stride = int64_t{p.groups} * p.in_fields * p.out_fields * p.numbers;
#pragma unroll 1
    for (int task = threadIdx.x; task < kTasks << p.source_bits; task += kThreads) {
      // Neighbouring threads read neighbouring fields and elements, and write rows that lie in different banks.
      const int near = task % kNearFields, source = task / kNearFields & ((1 << p.source_bits) - 1);
      const int rest = task / kNearFields >> p.source_bits, in = rest % (kFields / kNearFields) * kNearFields + near;
      const int out = rest / (kFields / kNearFields) * kOuts;
      const int position = sources[source].first + moved_tap(sources[source].matrix, round.tap(), p.size);
      const T* from = p.weight + int64_t{place.block} * p.in_fields * p.out_fields * p.numbers +
                      (round.field + in) * p.in_stride + (place.first_out + out) * p.out_stride + position;
      const int outs_left = round.field + in < p.in_fields ? p.out_fields - place.first_out - out : 0;
      const Sum* weights = relaxed + source * Forms;
      Sum sums[Forms][kOuts] = {};
#pragma unroll 1
      for (int bank = 0; bank < p.banks; bank += kBanks) {
        Sum numbers[kBanks][kOuts];
#pragma unroll
        for (int i = 0; i < kBanks; ++i, from += bank_stride)
#pragma unroll
          for (int o = 0; o < kOuts; ++o)
            numbers[i][o] = o < outs_left && bank + i < p.banks ? widen(from[o * p.out_stride]) : Sum{0};
#pragma unroll
        for (int i = 0; i < kBanks; ++i, weights += Forms << p.source_bits) {
          if (bank + i == p.banks) break;
#pragma unroll
          for (int form = 0; form < Forms; ++form)
#pragma unroll
            for (int o = 0; o < kOuts; ++o) sums[form][o] += weights[form] * numbers[i][o];
        }
      }
      T* slot = to + source * Forms * Tile::kMatrix + Tile::matrix_at(in, out);
#pragma unroll
      for (int form = 0; form < Forms; ++form) {
        Outs outs;
#pragma unroll
        for (int o = 0; o < kOuts; ++o) outs.numbers[o] = Tile::number(sums[form][o]);
        *reinterpret_cast<Outs*>(slot + form * Tile::kMatrix) = outs;
      }
    }
  }
};

}  // namespace
}  // namespace gconv::cuda
