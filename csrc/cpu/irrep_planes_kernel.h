// Feature maps in memory and as the irrep kernels read them. Included after irrep_vector_kernel.h, in the same namespace.
//
// In memory a map is rows of pixels (its columns are neighbours) or pixels of numbers (its fields or elements are). The
// kernels read planes: one for each field and element, zeros around it. Pixels of numbers are turned into planes, and back,
// by transposing squares of N fields × N pixels in registers.

// Converts n neighbours and touches no others. Of one type it is a copy, whose last vector overlaps the one before.
template <typename To, typename From>
__attribute__((always_inline)) inline void copy_run(To* __restrict__ to, const From* __restrict__ from, int64_t n) {
  if constexpr (std::is_same_v<To, From>) {
    using V = typename Vector<To>::Unaligned;
    constexpr int lanes = Vector<To>::lanes;
    if (n >= lanes) {
      for (int64_t i = 0; i + lanes <= n; i += lanes) {
        typename Vector<To>::Aligned value = *reinterpret_cast<const V*>(from + i);
        keep_in_register(value);  // or the compiler makes the loop a call of memcpy, slower on a row of an image
        *reinterpret_cast<V*>(to + i) = value;
      }
      *reinterpret_cast<V*>(to + n - lanes) = *reinterpret_cast<const V*>(from + n - lanes);
      return;
    }
    int64_t i = 0;
#pragma GCC unroll 4
    for (int part = lanes / 2; part > 0; part /= 2)
      if (n & part) {
        std::memcpy(to + i, from + i, part * sizeof(To));
        i += part;
      }
  } else if constexpr (sizeof(To) > sizeof(From)) {
    for (int64_t i = 0; i < n; ++i) to[i] = widen(from[i]);
  } else {
    for (int64_t i = 0; i < n; ++i) to[i] = narrow<To>(from[i]);
  }
}

// to[i] = from[2 i] for as many of the n as whole vectors give, reading nothing behind the last one; and how many.
template <typename V, std::size_t... I>
__attribute__((always_inline)) inline V every_second(V a, V b, std::index_sequence<I...>) {
  return __builtin_shufflevector(a, b, (2 * I)...);
}
template <typename T>
int64_t copy_every_second(T* __restrict__ to, const T* __restrict__ from, int64_t n) {
  using V = typename Vector<T>::Unaligned;
  constexpr int lanes = Vector<T>::lanes;
  int64_t i = 0;
  for (; i + lanes < n; i += lanes)
    *reinterpret_cast<V*>(to + i) = every_second<typename Vector<T>::Aligned>(
        *reinterpret_cast<const V*>(from + 2 * i), *reinterpret_cast<const V*>(from + 2 * i + lanes),
        std::make_index_sequence<lanes>());
  return i;
}

// The backward pass of ReLU: a gradient counts where the activated number is above 0 (or is no number, as in PyTorch).
template <typename T>
__attribute__((always_inline)) inline T masked(T gradient, T activated) {
  return activated <= 0 ? T{} : gradient;  // of numbers and of vectors
}

// Copies rows of n neighbours that lie so far apart, as many vectors each, of which the last overlaps the one before; with
// `activated` (or nullptr), which lies like `from`, see masked().
template <int Vectors, typename T>
void copy_rows(T* __restrict__ to, int64_t to_row, const T* __restrict__ from, const T* __restrict__ activated,
               int64_t from_row, int64_t n, int64_t rows) {
  const int64_t last = n - Vector<T>::lanes;
  for (int64_t i = 0; i < rows; ++i) {
    typename Vector<T>::Aligned value[Vectors];
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) {
      const int64_t at = i * from_row + (v + 1 < Vectors ? v * Vector<T>::lanes : last);
      value[v] = Neighbours{}.load(from + at);
      if (activated) value[v] = masked<typename Vector<T>::Aligned>(value[v], Neighbours{}.load(activated + at));
    }
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v)
      *reinterpret_cast<typename Vector<T>::Unaligned*>(to + i * to_row +
                                                        (v + 1 < Vectors ? v * Vector<T>::lanes : last)) = value[v];
  }
}
// The same for rows within a vector.
template <typename T>
void copy_narrow_rows(T* to, int64_t to_row, const T* from, const T* activated, int64_t from_row, int64_t n,
                      int64_t rows) {
  const uint32_t lanes = (uint32_t{1} << n) - 1;
  for (int64_t i = 0; i < rows; ++i) {
    typename Vector<T>::Aligned value = load_lanes(from + i * from_row, lanes);
    if (activated) value = masked<typename Vector<T>::Aligned>(value, load_lanes(activated + i * from_row, lanes));
    store_lanes(to + i * to_row, value, lanes);
  }
}
// Says whether rows are as short as one of these is for.
template <int Vectors = 8, typename T>
bool copy_short_rows(T* to, int64_t to_row, const T* from, const T* activated, int64_t from_row, int64_t n,
                     int64_t rows) {
  if constexpr (Vectors > 0) {
    const int64_t vectors = n < Vector<T>::lanes ? 0 : (n + Vector<T>::lanes - 1) / Vector<T>::lanes;
    if (vectors != Vectors) return copy_short_rows<Vectors - 1>(to, to_row, from, activated, from_row, n, rows);
    copy_rows<Vectors>(to, to_row, from, activated, from_row, n, rows);
    return true;
  } else if constexpr (kMasks) {
    if (n >= Vector<T>::lanes) return false;
    copy_narrow_rows(to, to_row, from, activated, from_row, n, rows);
    return true;
  }
  return false;
}

template <typename To, typename From>
void copy_run_masked(To* __restrict__ to, const From* __restrict__ from, const From* __restrict__ activated,
                     int64_t n) {
  int64_t i = 0;
  if constexpr (std::is_same_v<To, From>) {
    using V = typename Vector<To>::Unaligned;
    for (; i + Vector<To>::lanes <= n; i += Vector<To>::lanes)
      *reinterpret_cast<V*>(to + i) = masked<typename Vector<To>::Aligned>(*reinterpret_cast<const V*>(from + i),
                                                                           *reinterpret_cast<const V*>(activated + i));
  }
  for (; i < n; ++i) to[i] = masked<To>(widen(from[i]), widen(activated[i]));
}

// Calls function(integral_constant<int, N>) with the largest power of two N from 4 to the lanes of a vector that is no
// larger than `most`, and says whether there is one.
template <typename T, int N = Vector<T>::lanes, typename Function>
bool with_square(int64_t most, Function function) {
  if constexpr (N >= 4) {
    if (most < N) return with_square<T, N / 2>(most, function);
    function(std::integral_constant<int, N>{});
    return true;
  }
  return false;
}

// The first of N neighbours, for every block of n: the last block overlaps the one before it.
template <int N, typename Function>
__attribute__((always_inline)) inline void for_each_block(int64_t n, Function function) {
  for (int64_t i = 0; i + N <= n; i += N) function(i);
  if (n % N) function(n - N);
}

// Of a pixel of numbers: `lines` lines of `count` neighbours each, `line` numbers apart. Number i of line l belongs to
// plane l · line_plane + i · plane.
struct PixelFormat {
  int64_t lines = 0, count = 0, line = 0, line_plane = 0, plane = 0;
};

inline PixelFormat pixel_format(const MapStrides& strides, int64_t fields, int64_t elements) {
  if (elements > 1 && strides.element == 1 && strides.field == elements) return {1, fields * elements, 0, 0, 1};
  if (strides.field == 1) return {elements, fields, strides.element, 1, elements};
  return {};
}

// A rectangle of pixels: rows and columns from `first` to `last`.
struct Pixels {
  int64_t first_row, last_row, first, last;
};

// Copies the pixels of one image to planes, field and plane apart; row_offset(i) is where column 0 of row i lies in a plane,
// to_row the distance from one to the next, or 0 if it is not the same for all. With `activated` (or nullptr), which lies
// like the image, see masked().
template <typename T, typename S, typename RowOffset>
void copy_to_planes(const S* image, const S* activated, const MapStrides& strides, int64_t fields, int64_t elements,
                    const Pixels& pixels, T* planes, int64_t to_field, int64_t to_plane, RowOffset row_offset,
                    int64_t to_row) {
  if (pixels.first >= pixels.last) return;
  if constexpr (std::is_same_v<T, S>) {
    const PixelFormat format = pixel_format(strides, fields, elements);
    // Fields and elements as one line need planes of equal distance.
    const bool lies_so = format.lines && (format.plane != 1 || to_field == elements * to_plane);
    if (strides.column != 1 && lies_so) {
      const int64_t to_next = format.plane == 1 ? to_plane : to_field;
      const auto copy = [&](auto n) {
        constexpr int N = decltype(n)::value;
        for (int64_t i = pixels.first_row; i < pixels.last_row; ++i)
          for (int64_t line = 0; line < format.lines; ++line) {
            const S* from = image + i * strides.row + line * format.line + pixels.first * strides.column;
            T* to = planes + line * to_plane + row_offset(i) + pixels.first;
            for_each_block<N>(pixels.last - pixels.first, [&](int64_t j) {
              for_each_block<N>(format.count, [&](int64_t k) {
                const int64_t at = j * strides.column + k;
                Square<T, N>::copy(from + at, strides.column, to + k * to_next + j, to_next, 0, N,
                                   activated ? activated + (from - image) + at : nullptr);
              });
            });
          }
      };
      if (with_square<T>(std::min(pixels.last - pixels.first, format.count), copy)) return;
    }
  }
  const int64_t count = pixels.last - pixels.first;
  for (int64_t field = 0; field < fields; ++field)
    for (int64_t element = 0; element < elements; ++element) {
      const int64_t plane = field * strides.field + element * strides.element;
      if constexpr (std::is_same_v<T, S>)
        if (to_row && strides.column == 1) {
          const int64_t from = plane + pixels.first_row * strides.row + pixels.first;
          T* to = planes + field * to_field + element * to_plane + row_offset(pixels.first_row) + pixels.first;
          if (copy_short_rows(to, to_row, image + from, activated ? activated + from : nullptr, strides.row, count,
                              pixels.last_row - pixels.first_row))
            continue;
        }
      for (int64_t i = pixels.first_row; i < pixels.last_row; ++i) {
        const int64_t row = plane + i * strides.row;
        T* to = planes + field * to_field + element * to_plane + row_offset(i);
        if (strides.column == 1 && activated)
          copy_run_masked(to + pixels.first, image + row + pixels.first, activated + row + pixels.first, count);
        else if (strides.column == 1)
          copy_run(to + pixels.first, image + row + pixels.first, count);
        else
          for (int64_t j = pixels.first; j < pixels.last; ++j) {
            const int64_t at = row + j * strides.column;
            to[j] = activated ? masked<T>(widen(image[at]), widen(activated[at])) : widen(image[at]);
          }
      }
    }
}

// The same for `images` images of rows of pixels, that lie side by side in the planes: `beside` numbers make a pixel there.
template <typename T, typename RowOffset>
void copy_to_planes_beside(const T* image, const T* activated, const MapStrides& strides, int64_t fields,
                           int64_t elements, const Pixels& pixels, int64_t images, int64_t beside, T* planes,
                           int64_t to_field, int64_t to_plane, RowOffset row_offset) {
  const int64_t count = pixels.last - pixels.first;
  if (count <= 0) return;
  const auto for_each_row = [&](auto copy) __attribute__((always_inline)) {
    for (int64_t field = 0; field < fields; ++field)
      for (int64_t element = 0; element < elements; ++element)
        for (int64_t i = pixels.first_row; i < pixels.last_row; ++i)
          copy(field * strides.field + element * strides.element + i * strides.row + pixels.first,
               planes + field * to_field + element * to_plane + row_offset(i) + pixels.first * beside);
  };
  const bool squares = with_square<T>(std::min(count, images), [&](auto n) {
    constexpr int N = decltype(n)::value;
    for_each_row([&](int64_t from, T* to) {
      for_each_block<N>(images, [&](int64_t b) {
        for_each_block<N>(count, [&](int64_t j) {
          const int64_t at = from + b * strides.batch + j;
          Square<T, N>::copy(image + at, strides.batch, to + j * beside + b, beside, 0, N,
                             activated ? activated + at : nullptr);
        });
      });
    });
  });
  if (squares) return;
  for_each_row([&](int64_t from, T* to) {
    for (int64_t b = 0; b < images; ++b)
      for (int64_t j = 0; j < count; ++j) {
        const int64_t at = from + b * strides.batch + j;
        to[j * beside + b] = activated ? masked<T>(image[at], activated[at]) : image[at];
      }
  });
}

// How images share planes, tiles and vectors.
struct Arrangement {
  int64_t behind = 1, beside = 1;  // as in PlaneLayout
  bool packed = false;             // as in PixelOrder
};

// How one input plane lies in the scratch: with its zeros, split into stride² phases so that a tap is a constant offset
// for every stride, each phase one flat row. Without a stride, neighbouring rows share their zero columns. The planes of
// several small images may lie one behind the other, neighbours sharing their zero rows, or side by side, pixel by pixel,
// without zero rows between them.
struct PlaneLayout {
  int64_t row = 0, image = 0, phase = 0, plane = 0, field = 0;  // strides in numbers
  int64_t images = 1;                                           // one behind the other
  int64_t beside = 1;                                           // side by side: so many numbers make a pixel
  int64_t row_stride = 1, column_stride = 1;
  std::vector<bool> read;  // whether any tap reads the phase

  // With `slack` numbers behind the last one that a tap reads, and phases of a multiple of `multiple` numbers.
  PlaneLayout(const ConvShape& shape, int64_t slack, int64_t multiple, const Arrangement& arrangement = {}) {
    const Axis &r = shape.rows, &c = shape.columns;
    images = arrangement.behind;
    row_stride = r.stride;
    column_stride = c.stride;
    beside = arrangement.beside;
    row = distance(c, shape.size) * beside;
    image = distance(r, shape.size) * row;
    const int64_t rows = (r.reach(shape.size) + r.stride - 1) / r.stride;
    phase =
        ((images - 1) * image + rows * row + c.reach(shape.size) * beside + slack + multiple - 1) / multiple * multiple;
    plane = phase * r.stride * c.stride;
    bool zeros = false;
    read.resize(r.stride * c.stride);
    for (int tap = 0; tap < shape.taps(); ++tap) {
      const Position at = tap_position(shape, tap);
      if (at.row < 0)
        zeros = true;
      else
        read[phase_of(at.row, at.column)] = true;
    }
    field = (shape.in_elements() + zeros) * plane;  // a plane of zeros for the taps that read nothing else
  }

  // From a line of pixels to the next, in pixels of one phase.
  static int64_t distance(const Axis& axis, int size) {
    const int64_t reach = axis.reach(size);
    if (axis.stride > 1) return (reach + axis.stride - 1) / axis.stride;
    const int64_t shared = std::max<int64_t>(0, std::min(axis.padding, reach - axis.out));
    return std::max(reach - shared,
                    std::min(reach, axis.in + axis.padding));  // the zeros at its end are the next one's
  }

  int64_t all_images() const { return images * beside; }
  // Calls function(first image, how many, where they lie) for those that lie side by side.
  template <typename Function>
  void for_each_image(int64_t count, Function function) const {
    for (int64_t i = 0; i < count; i += beside) function(i, std::min(beside, count - i), i / beside * image);
  }

  // Of a position among the zeros.
  int64_t phase_of(int64_t r, int64_t c) const { return r % row_stride * column_stride + c % column_stride; }
  int64_t offset(int64_t r, int64_t c) const {
    if (row_stride == 1 && column_stride == 1) return r * row + c * beside;
    return phase_of(r, c) * phase + r / row_stride * row + c / column_stride * beside;
  }
};

// The order in which vectors take output pixels: as they lie in the planes, and what lies between two rows is computed for
// nobody; or packed, each row right behind the one before it, and a vector in which rows end is loaded in several runs.
struct PixelOrder {
  static constexpr int kMostRuns = 4;

  bool packed;
  int64_t beside;                  // images
  int64_t width;                   // of a row, in numbers
  int64_t row, image;              // from one to the next in this order
  int64_t last_image;              // numbers of the last one
  int64_t plane_row, plane_image;  // from one to the next in a plane

  // `one` is the layout of a single image.
  PixelOrder(const ConvShape& shape, const PlaneLayout& one, const Arrangement& arrangement)
      : packed(arrangement.packed), beside(arrangement.beside), width(shape.columns.out * beside),
        row(packed ? width : one.row * beside), image(packed ? shape.rows.out * row : one.image * beside),
        last_image((shape.rows.out - 1) * row + width), plane_row(one.row * beside), plane_image(one.image * beside) {}

  // The most that a vector is loaded in.
  int64_t runs(int64_t lanes) const {
    if (!packed || width % lanes == 0) return 1;
    return lanes % width == 0 ? lanes / width : (lanes - 2) / width + 2;
  }
  // The most rows that a vector meets.
  int64_t rows(int64_t lanes) const { return 1 + (lanes - std::gcd(lanes, row) + row - 1) / row; }
  // The share of the tiles of so many numbers in which a row ends.
  double crossing(int64_t tile) const {
    const int64_t starts = tile - std::gcd(tile, width);
    return packed ? std::min(1.0, static_cast<double>(starts) / static_cast<double>(width)) : 0;
  }
  // How much longer a step of a vector takes for its runs, where it takes as long as so many multiply-adds without: a load
  // across cache lines, which most of these are, as long as four (measured).
  double cost(int64_t lanes, int64_t order, int64_t multiplies) const {
    const double more = runs(lanes) == 1 ? 0 : static_cast<double>(lanes - 1) / static_cast<double>(width);
    return 1 + more * static_cast<double>(4 * order) / static_cast<double>(multiplies);
  }
  // That the one from number `first` on is loaded in.
  int64_t runs(int64_t first, int64_t lanes) const { return packed ? (first % width + lanes - 1) / width + 1 : 1; }
  // Of some images.
  int64_t numbers(int64_t images) const { return (images - 1) / beside * image + last_image; }
  // In a plane.
  int64_t place(int64_t number) const {
    return packed ? number / image * plane_image + number % image / width * plane_row + number % width : number;
  }
};

// Where the pixels of one vector lie in a plane. Lane l of run r lies at[r] + l from its beginning.
template <typename T, int Runs>
struct PixelRuns {
  using V = typename Vector<T>::Aligned;
  using Mask = decltype(V{} < V{});

  int64_t at[Runs];
  Mask behind[Runs];  // lanes of the run and of those behind it

  PixelRuns() = default;
  // Those from number `first` on; what lies behind number `last` is anything that can be read.
  PixelRuns(const PixelOrder& order, int64_t first, int64_t last) {
    int64_t lane = 0;
    for (int run = 0; run < Runs; ++run) {
      const int64_t number = std::min(first + lane, last);
      at[run] = order.place(number) + first - number;
      for (int l = 0; l < Vector<T>::lanes; ++l) behind[run][l] = l >= lane ? -1 : 0;
      lane += order.width - (first + lane) % order.width;
    }
  }

  __attribute__((always_inline)) V load(const T* from) const {
    V value = Neighbours{}.load(from + at[0]);
#pragma GCC unroll 4
    for (int run = 1; run < Runs; ++run) value = behind[run] ? Neighbours{}.load(from + at[run]) : value;
    return value;
  }
};

// Calls function(integral_constant<int, runs>).
template <int Runs = PixelOrder::kMostRuns, typename Function>
void with_runs(int64_t runs, Function function) {
  if constexpr (Runs > 1)
    if (runs < Runs) return with_runs<Runs - 1>(runs, function);
  function(std::integral_constant<int, Runs>{});
}

constexpr int64_t kFewestBeside = 4;  // images: squares of numbers are transposed, from 4 × 4
// Whether the kernels can lay images side by side: rows of pixels in both maps, no conversion of types, no stride.
template <typename T, typename S>
bool can_lie_beside(const ConvShape& shape, const MapStrides& x, const MapStrides& y) {
  return std::is_same_v<T, S> && shape.columns.stride == 1 && x.column == 1 && y.column == 1;
}

// Offset of X[g] from the output pixel's: [orbit][g].
inline std::vector<int64_t> orbit_offsets(const ConvShape& shape, const std::vector<Orbit>& orbits,
                                          const PlaneLayout& layout) {
  std::vector<int64_t> offset;
  for (const Orbit& orbit : orbits)
    for (int g = 0; g < shape.order(); ++g) {
      const Position at = tap_position(shape, moved_tap(shape.group->matrices[g], orbit.tap, shape.size));
      offset.push_back(at.row < 0 ? shape.in_elements() * layout.plane
                                  : (shape.lifting ? 0 : g * layout.plane) + layout.offset(at.row, at.column));
    }
  return offset;
}

// Copies the planes, [field][element], of one image, or of those that lie side by side, between the zeros, which stay as
// they are from image to image.
template <typename T, typename S>
void pad_planes(const ConvShape& shape, const PlaneLayout& layout, const S* image, const S* activated,
                const MapStrides& strides, int64_t beside, T* planes) {
  const Axis &r = shape.rows, &c = shape.columns;
  const auto row_offset = [&](int64_t i) { return layout.offset(i + r.padding, 0); };
  const Pixels read{std::max<int64_t>(0, -r.padding), std::min(r.in, r.reach(shape.size) - r.padding),
                    std::max<int64_t>(0, -c.padding), std::min(c.in, c.reach(shape.size) - c.padding)};
  if constexpr (std::is_same_v<T, S>)
    if (layout.beside > 1)
      return copy_to_planes_beside(image, activated, strides, shape.in_fields, shape.in_elements(), read, beside,
                                   layout.beside, planes + c.padding * layout.beside, layout.field, layout.plane,
                                   row_offset);
  if (c.stride == 1)
    return copy_to_planes(image, activated, strides, shape.in_fields, shape.in_elements(), read, planes + c.padding,
                          layout.field, layout.plane, row_offset, r.stride == 1 ? layout.row : 0);
  // Every stride-th pixel of a row lies in the same phase.
  struct Run {
    int64_t from, to, count;
  };
  std::vector<Run> runs;
  for (int64_t i = read.first_row; i < read.last_row; ++i)
    for (int64_t j = read.first; j < std::min(read.last, read.first + c.stride); ++j)
      if (layout.read[layout.phase_of(i + r.padding, j + c.padding)])
        runs.push_back({i * strides.row + j * strides.column, layout.offset(i + r.padding, j + c.padding),
                        (read.last - j + c.stride - 1) / c.stride});
  const int64_t step = c.stride * strides.column;
  for (int64_t field = 0; field < shape.in_fields; ++field)
    for (int64_t element = 0; element < shape.in_elements(); ++element)
      for (const Run& run : runs) {
        int64_t from = field * strides.field + element * strides.element + run.from, k = 0;
        T* to = planes + field * layout.field + element * layout.plane + run.to;
        if constexpr (std::is_same_v<T, S>)
          if (step == 2 && !activated) k = copy_every_second(to, image + from, run.count);
        for (from += k * step; k < run.count; ++k, from += step)
          to[k] = activated ? masked<T>(widen(image[from]), widen(activated[from])) : widen(image[from]);
      }
}

// to[field][element] = w[element] · from[field][element] for planes of whole vectors.
template <typename T, typename S>
void scale_planes(const T* from, const S* w, int64_t fields, int64_t field_stride, int64_t elements, int64_t plane,
                  T* to) {
  using V = typename Vector<T>::Aligned;
  for (int64_t field = 0; field < fields; ++field)
    for (int64_t element = 0; element < elements; ++element) {
      const int64_t at = field * field_stride + element * plane;
      const T weight = widen(w[element]);
      for (int64_t i = at; i < at + plane; i += Vector<T>::lanes)
        *reinterpret_cast<V*>(to + i) = *reinterpret_cast<const V*>(from + i) * weight;
    }
}

// Fetches lines of memory into the second-level cache, some at every call. In a micro-kernel, a branch that turns out wrong
// costs more than the lines, so that they come in groups and calls take as many groups each. Left to where memory is used, it
// would be waited for while the multipliers idle.
struct LineGroups {
  static constexpr int64_t line = 64, group = 4;  // bytes, lines

  const char *at = nullptr, *end = nullptr;
  int64_t step = 0, span = 0, back = 0;  // from line to line, to the end, and back from there to where it goes on
  int64_t all = 0, left = 0, quota = 0;  // groups: the last are those of a call

  // `lines` lines of each of `planes` planes, one of each after the other.
  void aim(const void* from, int64_t lines, int64_t planes, int64_t plane_bytes, int64_t calls) {
    const int64_t groups = (planes + group - 1) / group;
    step = plane_bytes, span = planes * plane_bytes, back = groups * group * plane_bytes - line;
    all = groups * lines, quota = (all + calls - 1) / calls;
    aim(from);
  }
  // As many again.
  void aim(const void* from) {
    at = static_cast<const char*>(from), end = at + span;
    left = all;
  }
  __attribute__((always_inline)) void operator()() {
    const int64_t groups = std::min(quota, left);
    left -= groups;
    for (int64_t i = 0; i < groups; ++i) {
#pragma GCC unroll 4
      for (int64_t n = 0; n < group; ++n) __builtin_prefetch(at + n * step, 0, 2);
      at += group * step;
      at -= at < end ? 0 : back;
    }
  }
};

// Of the input, of its planes and of the result, or its gradient, while other parts of them are computed with.
struct Prefetch {
  LineGroups x, planes, y;

  void operator()() {
    x();
    planes();
    y();
  }
};
