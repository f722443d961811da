// Both passes of window sums, cpu/window_sum.h. Included once per instruction set, after vector_kernel.h, inside a namespace
// that sets kVectorBytes; hence no include guard and no includes.

template <typename T>
struct WindowSum {
  using Aligned = typename Vector<T>::Aligned;
  using Unaligned = typename Vector<T>::Unaligned;
  static constexpr int64_t kLanes = Vector<T>::lanes;

  // The sum of the 0, 1, 2 or 4 numbers at `from` and these offsets.
  template <int Chains>
  static __attribute__((always_inline)) inline void add(const T* from, const int64_t* offset, int count,
                                                        Aligned (&sum)[Chains]) {
    const auto tap = [&](int number, int chain) __attribute__((always_inline)) {
      return static_cast<Aligned>(*reinterpret_cast<const Unaligned*>(from + offset[number] + chain * kLanes));
    };
    switch (count) {
      case 1:
#pragma GCC unroll 4
        for (int c = 0; c < Chains; ++c) sum[c] = tap(0, c);
        break;
      case 2:
#pragma GCC unroll 4
        for (int c = 0; c < Chains; ++c) sum[c] = tap(0, c) + tap(1, c);
        break;
      case 4:
#pragma GCC unroll 4
        for (int c = 0; c < Chains; ++c) sum[c] = (tap(0, c) + tap(1, c)) + (tap(2, c) + tap(3, c));
        break;
      default:
#pragma GCC unroll 4
        for (int c = 0; c < Chains; ++c) sum[c] = Aligned{};
    }
  }

  // Chains vectors of to[i] = Σ over orbits of weight · the sum of the numbers at from[i + offset].
  template <int Chains>
  static void sum_vectors(const std::vector<Orbit>& orbits, const T* from, T* to) {
    Aligned total[Chains] = {};
    for (const Orbit& orbit : orbits) {
      Aligned one[Chains], other[Chains];
      add<Chains>(from, orbit.offset, orbit.first, one);
      add<Chains>(from, orbit.offset + 4, orbit.second, other);
      const T weight = static_cast<T>(orbit.weight);
#pragma GCC unroll 4
      for (int c = 0; c < Chains; ++c) total[c] += (one[c] + other[c]) * weight;
    }
#pragma GCC unroll 4
    for (int c = 0; c < Chains; ++c) *reinterpret_cast<Unaligned*>(to + c * kLanes) = total[c];
  }

  // Reads and writes up to kLanes numbers further than `count`.
  static void sum(const std::vector<Orbit>& orbits, const T* from, T* to, int64_t count) {
    int64_t i = 0;
    for (; i + 3 * kLanes < count; i += 4 * kLanes) sum_vectors<4>(orbits, from + i, to + i);
    for (; i + kLanes < count; i += 2 * kLanes) sum_vectors<2>(orbits, from + i, to + i);
    for (; i < count; i += kLanes) sum_vectors<1>(orbits, from + i, to + i);
  }

  // So many rows of maps at a time as fit into the first level's cache beside their sums; at least one.
  static int64_t band_of(int64_t rows, int64_t numbers_a_row) {
    constexpr int64_t bytes = 32 << 10;
    return std::min(rows, std::max<int64_t>(1, bytes / (numbers_a_row * static_cast<int64_t>(sizeof(T)))));
  }

  // Rows of the padded plane, in which a tap is a shift: one offset for all pixels.  Sums are formed for every column, of
  // which every stride-th is kept: that is cheaper than numbers that lie apart.
  static void fprop(const WindowSumParams& p, const T* x, T* y, Planes planes) {
    const int64_t s = p.stride, out_height = p.out_height(), out_width = p.out_width();
    const int64_t columns = p.width + 2 * p.padding, used = (out_width - 1) * s + 1;
    const int64_t band = band_of(out_height, 2 * s * columns);
    const std::vector<Orbit> orbits = orbits_of(p, [&](int64_t i, int64_t j) { return i * columns + j; });
    std::vector<T> map(((band - 1) * s + p.size) * columns + kLanes), sums(band * columns + kLanes);
    for (int64_t plane = planes.begin; plane < planes.end; ++plane)
      for (int64_t row = 0; row < out_height; row += band) {
        const int64_t rows = std::min(band, out_height - row), first = row * s - p.padding;
        for (int64_t r = 0; r < (rows - 1) * s + p.size; ++r)
          if (first + r >= 0 && first + r < p.height)
            std::copy_n(x + (plane * p.height + first + r) * p.width, p.width, map.data() + r * columns + p.padding);
          else
            std::fill_n(map.data() + r * columns + p.padding, p.width, T{0});
        if (s == 1)
          sum(orbits, map.data(), sums.data(), (rows - 1) * columns + used);
        else
          for (int64_t r = 0; r < rows; ++r) sum(orbits, map.data() + r * s * columns, sums.data() + r * columns, used);
        for (int64_t r = 0; r < rows; ++r)
          keep_every(s, sums.data() + r * columns, y + (plane * out_height + row + r) * out_width, out_width);
      }
  }

  // to[i] = from[s · i]
  static void keep_every(int64_t s, const T* __restrict from, T* __restrict to, int64_t count) {
    if (s == 1)
      std::copy_n(from, count, to);
    else if (s == 2)
      for (int64_t i = 0; i < count; ++i) to[i] = from[2 * i];
    else
      for (int64_t i = 0; i < count; ++i) to[i] = from[s * i];
  }

  // The columns of dy lie s apart in the map, zeros between and around them; its rows lie side by side, and each of the s
  // phases of the rows of dx sees the rows of taps that reach it.
  static void dgrad(const WindowSumParams& p, const T* dy, T* dx, Planes planes) {
    const int64_t s = p.stride, last = p.last(), out_height = p.out_height(), out_width = p.out_width();
    const int64_t phases = std::min(s, p.size), more = last / s;  // rows above the first that taps read
    const int64_t all_rows = (p.height + p.padding + s - 1) / s;  // of a phase of the padded plane
    const int64_t columns = p.width + p.padding + last;           // the padded plane's, behind `last` others
    const int64_t kept = std::min(out_width, (p.width + p.padding + s - 1) / s);
    const int64_t band = band_of(all_rows, 2 * columns);
    std::vector<std::vector<Orbit>> orbits;
    orbits.reserve(phases);
    for (int64_t phase = 0; phase < phases; ++phase)
      orbits.push_back(orbits_of(
          p, [&](int64_t i, int64_t j) { return i % s == phase ? (more - i / s) * columns + last - j : kNoPixel; }));
    std::vector<T> map((band + more) * columns + kLanes), sums(band * columns + kLanes);
    for (int64_t plane = planes.begin; plane < planes.end; ++plane) {
      T* const to = dx + plane * p.height * p.width;
      if (phases < s) std::fill_n(to, p.height * p.width, T{0});
      for (int64_t row = 0; row < all_rows; row += band) {
        const int64_t rows = std::min(band, all_rows - row);
        for (int64_t r = 0; r < rows + more; ++r) {
          const int64_t from_row = row + r - more;
          const bool inside = from_row >= 0 && from_row < out_height;
          const T* from = inside ? dy + (plane * out_height + from_row) * out_width : nullptr;
          T* at = map.data() + r * columns + last;
          for (int64_t c = 0; c < kept; ++c) at[s * c] = inside ? from[c] : T{0};
        }
        for (int64_t phase = 0; phase < phases; ++phase) {
          sum(orbits[phase], map.data(), sums.data(), (rows - 1) * columns + columns - last);
          for (int64_t r = 0; r < rows; ++r)
            if (const int64_t to_row = (row + r) * s + phase - p.padding; to_row >= 0 && to_row < p.height)
              std::copy_n(sums.data() + r * columns + p.padding, p.width, to + to_row * p.width);
        }
      }
    }
  }
};
