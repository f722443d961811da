// What the irrep kernels share: vectors of pixels, and butterflies in registers.
// Included once per instruction set, inside a namespace that sets kVectorBytes and kVectorRegisters; hence no include
// guard and no includes.
//
// Vector lanes run over output pixels. A plane of the padded input is one flat row, so the |P| numbers of one orbit are
// |P| unaligned vectors at constant offsets from the pixel, or, where rows end within a vector, from those of its runs.

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
__attribute__((always_inline)) inline void keep_in_register([[maybe_unused]] V& value) {
#if defined(__x86_64__) && !defined(GCONV_EMULATED_AVX512)
  asm("" : "+v"(value));
#endif
}

// One step of a vector: its multiply-adds with so many fields, and as many as its butterflies take the time of.
template <typename Group>
constexpr int64_t multiplies_of_step(int64_t fields) {
  int64_t multiplies = 6 * Group::table.order;
  for (const Irrep& irrep : Group::table.irreps) multiplies += irrep.dim * irrep.dim * irrep.columns() * fields;
  return multiplies;
}

// All lanes of a vector are neighbours.
struct Neighbours {
  template <typename T>
  __attribute__((always_inline)) auto load(const T* from) const {
    return static_cast<typename Vector<T>::Aligned>(*reinterpret_cast<const typename Vector<T>::Unaligned*>(from));
  }
};

// Recursion, not loops: these arrays must become registers before the compiler unrolls loops.
template <typename Group, int G = 0, typename V, typename T, typename Offset, typename Pixels = Neighbours>
__attribute__((always_inline)) inline void load_elements(V (&f)[Group::table.order], const T* from,
                                                         const Offset& offset, const Pixels& pixels = {}) {
  if constexpr (G < Group::table.order) {
    f[G] = pixels.load(from + offset[G]);
    keep_in_register(f[G]);
    load_elements<Group, G + 1>(f, from, offset, pixels);
  }
}

template <typename Group, int G = 0, typename V, typename T>
__attribute__((always_inline)) inline void store_elements(const V (&f)[Group::table.order], T* to, int64_t stride) {
  if constexpr (G < Group::table.order) {
    *reinterpret_cast<typename Vector<T>::Aligned*>(to + G * stride) = f[G];
    store_elements<Group, G + 1>(f, to, stride);
  }
}

// Whether the processor loads and stores the lanes of a mask.
#if defined(__x86_64__)
constexpr bool kMasks = kVectorBytes == 64;
#else
constexpr bool kMasks = false;
#endif

// 0 in lanes out of the mask.
template <typename T>
__attribute__((always_inline)) inline auto load_lanes(const T* from, uint32_t lanes) {
  if constexpr (std::is_same_v<T, double>)
    return static_cast<typename Vector<T>::Aligned>(_mm512_maskz_loadu_pd(static_cast<uint8_t>(lanes), from));
  else
    return static_cast<typename Vector<T>::Aligned>(_mm512_maskz_loadu_ps(static_cast<uint16_t>(lanes), from));
}

template <typename T, typename V>
__attribute__((always_inline)) inline void store_lanes(T* to, const V& value, uint32_t lanes) {
  if constexpr (std::is_same_v<T, double>)
    _mm512_mask_storeu_pd(to, static_cast<uint8_t>(lanes), value);
  else
    _mm512_mask_storeu_ps(to, static_cast<uint16_t>(lanes), value);
}

// Lanes of the mask lie `gap` numbers further on.
struct TwoRuns {
  int64_t gap;
  uint32_t behind;

  template <typename T>
  __attribute__((always_inline)) auto load(const T* from) const {
    using V = typename Vector<T>::Aligned;
    const V value = Neighbours{}.load(from);
    if constexpr (std::is_same_v<T, double>)
      return static_cast<V>(_mm512_mask_loadu_pd(value, static_cast<uint8_t>(behind), from + gap));
    else
      return static_cast<V>(_mm512_mask_loadu_ps(value, static_cast<uint16_t>(behind), from + gap));
  }
};

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
    const uintptr_t beyond = reinterpret_cast<uintptr_t>(store_.data()) % kVectorBytes;
    return store_.data() + (beyond ? (kVectorBytes - beyond) / sizeof(T) : 0);
  }

 private:
  std::vector<T> store_;
};
