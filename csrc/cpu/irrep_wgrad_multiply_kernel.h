// The inner loops of irrep wgrad: matrix products over pixels. Included after irrep_planes_kernel.h, in the same namespace.
//
// Lanes are pixels: every accumulator holds partial sums of one (output field, step) pair, and its lanes are added up at the
// end of every stretch of pixels, in a fixed order. Or lanes are output fields, where these fill vectors well: dŷ is
// transposed once, and no lanes are added up.

constexpr int kWgradFields = 3;
constexpr int kWgradSteps = kVectorRegisters >= 32 ? 9 : 4;
constexpr int64_t kMaxStretch = 26;  // vectors of pixels

template <typename V, std::size_t... I>
__attribute__((always_inline)) inline V add_neighbours(V a, V b, std::index_sequence<I...>) {
  return __builtin_shufflevector(a, b, (2 * I)...) + __builtin_shufflevector(a, b, (2 * I + 1)...);
}

// Sums the lanes of as many vectors as there are lanes, in a tree that gives all sums at once: lane k of the result is that
// of v[k].
template <typename T, typename V>
__attribute__((always_inline)) inline V sum_lanes(V (&v)[Vector<T>::lanes]) {
#pragma GCC unroll 8
  for (int n = Vector<T>::lanes / 2; n > 0; n /= 2)
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i)
      v[i] = add_neighbours(v[2 * i], v[2 * i + 1], std::make_index_sequence<Vector<T>::lanes>());
  return v[0];
}

template <typename T>
struct WgradArguments {
  const T* dy[2];  // per row
  const T* x[2];
  int64_t dy_field, x_step, pixels;
  T* to;  // [field][step], and room for a vector
};

template <typename T, int Rows, bool NegateSecond, int Fields, int Steps>
void wgrad_multiply(const WgradArguments<T>& a) {
  using V = typename Vector<T>::Aligned;
  constexpr int lanes = Vector<T>::lanes;
  V sum[Fields][Steps];
#pragma GCC unroll 16
  for (int o = 0; o < Fields; ++o)
#pragma GCC unroll 16
    for (int s = 0; s < Steps; ++s) sum[o][s] = V{};
#pragma GCC unroll 2
  for (int r = 0; r < Rows; ++r) {
    const T* dy = a.dy[r];
    const T* x = a.x[r];
#pragma GCC unroll 1
    for (int64_t p = 0; p < a.pixels; p += lanes, dy += lanes, x += lanes) {
      V value[Fields];
#pragma GCC unroll 16
      for (int o = 0; o < Fields; ++o) value[o] = *reinterpret_cast<const V*>(dy + o * a.dy_field);
#pragma GCC unroll 16
      for (int s = 0; s < Steps; ++s) {
        V f = *reinterpret_cast<const V*>(x + s * a.x_step);
        keep_in_register(f);
#pragma GCC unroll 16
        for (int o = 0; o < Fields; ++o) {
          if (NegateSecond && r == 1)
            sum[o][s] -= value[o] * f;
          else
            sum[o][s] += value[o] * f;
        }
      }
    }
  }
#pragma GCC unroll 32
  for (int first = 0; first < Fields * Steps; first += lanes) {
    V part[lanes];
#pragma GCC unroll 32
    for (int i = 0; i < lanes; ++i)
      part[i] = first + i < Fields * Steps ? sum[(first + i) / Steps % Fields][(first + i) % Steps] : V{};
    const V total = sum_lanes<T>(part);
    *reinterpret_cast<typename Vector<T>::Unaligned*>(a.to + first) += total;
  }
}

template <typename T>
using WgradMultiply = void (*)(const WgradArguments<T>&);

template <typename T, int Rows, bool NegateSecond, int Fields = kWgradFields, int Steps = kWgradSteps>
WgradMultiply<T> wgrad_for(int64_t fields, int64_t steps) {
  if constexpr (Fields == 0 || Steps == 0)
    return nullptr;
  else if (fields < Fields)
    return wgrad_for<T, Rows, NegateSecond, Fields - 1, Steps>(fields, steps);
  else if (steps < Steps)
    return wgrad_for<T, Rows, NegateSecond, Fields, Steps - 1>(fields, steps);
  else
    return wgrad_multiply<T, Rows, NegateSecond, Fields, Steps>;
}

// Whether one instruction loads a number into all lanes; without, lanes that are output fields cost more than they save.
constexpr bool kBroadcasts = kVectorBytes > 16;

// Where lanes are output fields: steps of a block, and pixels of a stretch, so that what they read stays in the first-level
// cache.
constexpr int kFieldsSteps = 9;
constexpr int64_t kFieldsPixels = 96;

// X̂ of a block of steps, [step][plane][pixel], and dŷ of as many output fields as a vector has lanes, [plane][pixel][field]:
// strides that the compiler knows. At powers of two, rows would share cache sets.
template <typename T>
struct WgradLayout {
  static constexpr int64_t lanes = Vector<T>::lanes;
  static constexpr int64_t x_row = kMaxStretch * lanes + lanes;
  static constexpr int64_t dy_plane = kFieldsPixels * lanes + lanes;
};

// For so many vectors of output fields, the steps whose sums fit in registers.
template <typename Group, int At>
constexpr int fitting_steps(int vectors) {
  constexpr Irrep irrep = Group::table.irreps[At];
  const int fitting = kAccumulators / (irrep.columns() * irrep.dim * vectors);
  return fitting < kFieldsSteps ? fitting : kFieldsSteps;
}
// Two where they use each number of X̂ twice and there are registers enough.
template <typename Group, int At>
constexpr int field_vectors() {
  return Group::table.irreps[At].dim == 1 && kVectorRegisters >= 32 ? 2 : 1;
}

template <typename T>
using WgradFields = void (*)(const T* dy, const T* x, int64_t pixels, T* to, int64_t to_plane, int64_t to_fields);

// to[i][j][vector][step][field] += Σ_pixels Σ_row dŷ[row][i][pixel][field] · X̂[step][row][j][pixel] for one irrep.
template <typename T, typename Group, int At, int Vectors, int Steps>
void wgrad_fields(const T* dy, const T* x, int64_t pixels, T* to, int64_t to_plane, int64_t to_fields) {
  using V = typename Vector<T>::Aligned;
  constexpr int lanes = Vector<T>::lanes, order = Group::table.order;
  constexpr Irrep irrep = Group::table.irreps[At];
  constexpr int columns = irrep.columns(), dim = irrep.dim;
  constexpr int64_t x_row = WgradLayout<T>::x_row, dy_plane = WgradLayout<T>::dy_plane;
  V sum[columns][dim][Steps][Vectors];
#pragma GCC unroll 2
  for (int i = 0; i < columns; ++i)
#pragma GCC unroll 2
    for (int j = 0; j < dim; ++j)
#pragma GCC unroll 16
      for (int s = 0; s < Steps; ++s)
#pragma GCC unroll 2
        for (int v = 0; v < Vectors; ++v) sum[i][j][s][v] = V{};
#pragma GCC unroll 1
  for (const T* const end = x + pixels; x != end; ++x, dy += lanes) {
    V value[dim][columns][Vectors];
#pragma GCC unroll 2
    for (int r = 0; r < dim; ++r)
#pragma GCC unroll 2
      for (int i = 0; i < columns; ++i)
#pragma GCC unroll 2
        for (int v = 0; v < Vectors; ++v)
          value[r][i][v] = *reinterpret_cast<const V*>(dy + (v * order + irrep.plane[r][i]) * dy_plane);
#pragma GCC unroll 16
    for (int s = 0; s < Steps; ++s)
#pragma GCC unroll 2
      for (int r = 0; r < dim; ++r)
#pragma GCC unroll 2
        for (int j = 0; j < dim; ++j) {
          const T number = x[(s * order + irrep.plane[r][j]) * x_row];
#pragma GCC unroll 2
          for (int i = 0; i < columns; ++i)
#pragma GCC unroll 2
            for (int v = 0; v < Vectors; ++v) {
              if (irrep.complex_type && r == 1 && j == 1)
                sum[i][j][s][v] -= value[r][i][v] * number;
              else
                sum[i][j][s][v] += value[r][i][v] * number;
            }
        }
  }
#pragma GCC unroll 2
  for (int i = 0; i < columns; ++i)
#pragma GCC unroll 2
    for (int j = 0; j < dim; ++j)
#pragma GCC unroll 2
      for (int v = 0; v < Vectors; ++v)
#pragma GCC unroll 16
        for (int s = 0; s < Steps; ++s)
          *reinterpret_cast<typename Vector<T>::Unaligned*>(to + irrep.plane[i][j] * to_plane + v * to_fields +
                                                            s * lanes) += sum[i][j][s][v];
}

template <typename T, typename Group, int At, int Vectors, int Steps = fitting_steps<Group, At>(Vectors)>
WgradFields<T> wgrad_fields_for(int64_t steps) {
  if constexpr (Steps == 0)
    return nullptr;
  else if (steps < Steps)
    return wgrad_fields_for<T, Group, At, Vectors, Steps - 1>(steps);
  else
    return wgrad_fields<T, Group, At, Vectors, Steps>;
}
