// What the irrep kernels share: vectors of pixels, butterflies in registers, and the padded planes they read.
// Included once per instruction set, inside a namespace that sets kVectorBytes and kVectorRegisters; hence no include
// guard and no includes.
//
// Vector lanes run over output pixels. A plane of the padded input is one flat row, so the |P| numbers of one orbit are
// |P| unaligned vectors at constant offsets from the pixel.

template <typename T>
struct Vector {
  static constexpr int lanes = kVectorBytes / sizeof(T);
  typedef T Aligned __attribute__((vector_size(kVectorBytes), may_alias));
  typedef T Unaligned __attribute__((vector_size(kVectorBytes), may_alias, aligned(alignof(T))));
};

constexpr int kAccumulators = kVectorRegisters >= 32 ? 24 : 12;  // leaves room for the operands

template <typename Group, int Stage = 0, typename V>
__attribute__((always_inline)) inline void transform(V (&f)[Group::table.order]) {
  if constexpr (Stage < Group::table.butterfly_count) {
    constexpr Butterfly step = Group::table.butterflies[Stage];
    const V a = f[step.a], b = f[step.b];
    f[step.a] = a + b;
    f[step.b] = step.turned ? b - a : a - b;
    transform<Group, Stage + 1>(f);
  }
}

template <typename Group, int Stage = 0, typename V>
__attribute__((always_inline)) inline void transpose_transform(V (&f)[Group::table.order]) {
  if constexpr (Stage < Group::table.butterfly_count) {
    constexpr Butterfly step = Group::table.butterflies[Group::table.butterfly_count - 1 - Stage];
    const V a = f[step.a], b = f[step.b];
    f[step.a] = step.turned ? a - b : a + b;
    f[step.b] = step.turned ? a + b : a - b;
    transpose_transform<Group, Stage + 1>(f);
  }
}

// Or the compiler folds one load into several memory operands, and each crosses cache lines again.
template <typename V>
__attribute__((always_inline)) inline void keep_in_register(V& value) {
#if defined(__x86_64__)
  asm("" : "+v"(value));
#endif
}

// Recursion, not loops: these arrays must become registers before the compiler unrolls loops.
template <typename Group, int G = 0, typename V, typename T, typename Offset>
__attribute__((always_inline)) inline void load_elements(V (&f)[Group::table.order], const T* from, const Offset& offset) {
  if constexpr (G < Group::table.order) {
    f[G] = *reinterpret_cast<const typename Vector<T>::Unaligned*>(from + offset[G]);
    keep_in_register(f[G]);
    load_elements<Group, G + 1>(f, from, offset);
  }
}

template <typename Group, int G = 0, typename V, typename T>
__attribute__((always_inline)) inline void store_elements(const V (&f)[Group::table.order], T* to, int64_t stride) {
  if constexpr (G < Group::table.order) {
    *reinterpret_cast<typename Vector<T>::Aligned*>(to + G * stride) = f[G];
    store_elements<Group, G + 1>(f, to, stride);
  }
}

// Offsets of elements at a constant distance.
struct Strided {
  int64_t stride;
  __attribute__((always_inline)) int64_t operator[](int g) const { return g * stride; }
};

// Scratch memory, aligned to vectors and zeroed.
template <typename T>
class Scratch {
 public:
  explicit Scratch(int64_t count) : store_(count + kVectorBytes / sizeof(T), T(0)) {}
  T* data() {
    const uintptr_t address = reinterpret_cast<uintptr_t>(store_.data());
    return reinterpret_cast<T*>((address + kVectorBytes - 1) / kVectorBytes * kVectorBytes);
  }

 private:
  std::vector<T> store_;
};

// Converts n neighbours and touches no others. Of one type it is a copy, whose last vector overlaps the one before.
template <typename To, typename From>
__attribute__((always_inline)) inline void copy_run(To* __restrict__ to, const From* __restrict__ from, int64_t n) {
  if constexpr (std::is_same_v<To, From>) {
    using V = typename Vector<To>::Unaligned;
    constexpr int lanes = Vector<To>::lanes;
    if (n >= lanes) {
      for (int64_t i = 0; i + lanes <= n; i += lanes) *reinterpret_cast<V*>(to + i) = *reinterpret_cast<const V*>(from + i);
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

// How one input plane lies in the scratch: with its zeros, split into stride² phases so that a tap is a constant offset
// for every stride, each phase one flat row. Without a stride, neighbouring rows share their zero columns.
struct PlaneLayout {
  int64_t row = 0, phase = 0, plane = 0;  // strides in numbers
  int64_t flat = 0;                       // flat length of an output plane, row ends included
  int64_t row_stride = 1, column_stride = 1;

  PlaneLayout(const ConvShape& shape, int64_t slack, int64_t multiple) {
    const Axis &r = shape.rows, &c = shape.columns;
    row_stride = r.stride;
    column_stride = c.stride;
    const int64_t reach = c.reach(shape.size), shared = std::max<int64_t>(0, std::min(c.padding, reach - c.out));
    const int64_t end = std::min(reach, (c.in - 1) * c.spread + c.padding + 1);  // of what is not zero
    row = c.stride == 1 ? std::max(reach - shared, end) : (reach + c.stride - 1) / c.stride;
    flat = (r.out - 1) * row + c.out;
    const int64_t rows = (r.reach(shape.size) + r.stride - 1) / r.stride;
    phase = (rows * row + reach + slack + multiple - 1) / multiple * multiple;
    plane = phase * r.stride * c.stride;
  }

  // Of a position among the zeros.
  int64_t offset(int64_t r, int64_t c) const {
    return (r % row_stride * column_stride + c % column_stride) * phase + r / row_stride * row + c / column_stride;
  }
};

// Offset of X[g] from the output pixel's: [orbit][g].
inline std::vector<int64_t> orbit_offsets(const ConvShape& shape, const std::vector<Orbit>& orbits, const PlaneLayout& layout) {
  std::vector<int64_t> offset;
  for (const Orbit& orbit : orbits)
    for (int g = 0; g < shape.order(); ++g) {
      const int tap = moved_tap(shape.group->matrices[g], orbit.tap, shape.size);
      offset.push_back((shape.lifting ? 0 : g * layout.plane) +
                       layout.offset(tap / shape.size * shape.rows.dilation, tap % shape.size * shape.columns.dilation));
    }
  return offset;
}

// Copies one image's planes, [field][element], between the zeros, which stay as they are from image to image.
template <typename T, typename S>
void pad_planes(const ConvShape& shape, const PlaneLayout& layout, const S* image, const MapStrides& strides, T* planes) {
  const Axis &r = shape.rows, &c = shape.columns;
  const int64_t row_reach = r.reach(shape.size), column_reach = c.reach(shape.size);
  // First and last + 1 pixel that any output reads.
  const int64_t first = c.padding < 0 ? (-c.padding + c.spread - 1) / c.spread : 0;
  const int64_t last = std::min(c.in, column_reach <= c.padding ? 0 : (column_reach - c.padding - 1) / c.spread + 1);
  const bool copies = strides.column == 1 && c.stride == 1 && c.spread == 1;
  for (int64_t i = 0; i < r.in; ++i) {
    const int64_t position = i * r.spread + r.padding;
    if (position < 0 || position >= row_reach || first >= last) continue;
    T* to = planes + layout.offset(position, 0);
    for (int64_t field = 0; field < shape.in_fields; ++field)
      for (int64_t element = 0; element < shape.in_elements(); ++element, to += layout.plane) {
        const S* from = image + field * strides.field + element * strides.element + i * strides.row;
        if (copies)
          copy_run(to + first + c.padding, from + first, last - first);
        else if (c.stride == 1)
          for (int64_t j = first; j < last; ++j) to[j * c.spread + c.padding] = widen(from[j * strides.column]);
        else  // every stride-th pixel lies in the same phase; spread is 1 then
          for (int64_t j = first; j < std::min(last, first + c.stride); ++j) {
            const int64_t at = j + c.padding;
            T* in_phase = to + at % c.stride * layout.phase + at / c.stride;
            for (int64_t i = j; i < last; i += c.stride) *in_phase++ = widen(from[i * strides.column]);
          }
      }
  }
}
