// The inner loops of irrep fprop: matrix products whose lanes are pixels. Included after irrep_vector_kernel.h, in the
// same namespace.
//
// Exactness rests on two things here: both rows of an irrep take the same sequence of multiply-adds (for the complex type
// first against wr, then against wi), and every pixel goes through the same instructions wherever tile borders fall.

// Vectors of pixels.
constexpr int kMicroTile = 2;
constexpr int max_columns(int dim) { return kAccumulators / (kMicroTile * dim); }  // output fields a micro-kernel

// Where the operands of one micro-kernel lie.
struct MultiplyLayout {
  int64_t plane[2][2];  // offsets of x's (row, j)
  int64_t y_offset, y_row, y_column;
};

// y[row][column] += Σ_step Σ_j x[step][row][j] · w[step][j][column] on kMicroTile vectors of pixels; `first` starts
// from zero. What differs from call to call comes in registers: a structure just written would be waited for.
template <typename T, int Dim, bool ComplexType, int Columns>
void multiply(const MultiplyLayout& layout, const T* from, const T* __restrict__ w, int64_t steps, T* to, bool first) {
  using V = typename Vector<T>::Aligned;
  constexpr int lanes = Vector<T>::lanes;
  constexpr int Rows = kMicroTile;
  V sum[Dim][Columns][Rows];
  const MultiplyLayout a = layout;
  T* y = to + a.y_offset;
  if (first) {
#pragma GCC unroll 16
    for (int i = 0; i < Dim; ++i)
#pragma GCC unroll 16
      for (int o = 0; o < Columns; ++o)
#pragma GCC unroll 16
        for (int r = 0; r < Rows; ++r) sum[i][o][r] = V{};
  } else {
#pragma GCC unroll 16
    for (int o = 0; o < Columns; ++o, y += a.y_column)
#pragma GCC unroll 16
      for (int i = 0; i < Dim; ++i)
#pragma GCC unroll 16
        for (int r = 0; r < Rows; ++r) sum[i][o][r] = *reinterpret_cast<const V*>(y + i * a.y_row + r * lanes);
  }

  const T* x[Dim][Dim];
#pragma GCC unroll 16
  for (int i = 0; i < Dim; ++i)
#pragma GCC unroll 16
    for (int j = 0; j < Dim; ++j) x[i][j] = from + a.plane[i][j];
#pragma GCC unroll 2  // counting takes ports of the multipliers
  for (int64_t at = 0, end = steps * Rows * lanes; at < end; at += Rows * lanes, w += Dim * Columns) {
#pragma GCC unroll 16
    for (int j = 0; j < Dim; ++j) {
      V value[Dim][Rows];
#pragma GCC unroll 16
      for (int i = 0; i < Dim; ++i)
#pragma GCC unroll 16
        for (int r = 0; r < Rows; ++r) value[i][r] = *reinterpret_cast<const V*>(x[i][j] + at + r * lanes);
#pragma GCC unroll 16
      for (int o = 0; o < Columns; ++o) {
        const T weight = w[j * Columns + o];
#pragma GCC unroll 16
        for (int i = 0; i < Dim; ++i)
#pragma GCC unroll 16
          for (int r = 0; r < Rows; ++r) {
            if (ComplexType && i == 1 && j == 1)
              sum[i][o][r] -= value[i][r] * weight;
            else
              sum[i][o][r] += value[i][r] * weight;
          }
      }
    }
  }
  y = to + a.y_offset;
  asm("" : "+r"(y));  // or the compiler keeps a pointer per field alive across the loop
#pragma GCC unroll 16
  for (int o = 0; o < Columns; ++o, y += a.y_column)
#pragma GCC unroll 16
    for (int i = 0; i < Dim; ++i)
#pragma GCC unroll 16
      for (int r = 0; r < Rows; ++r) *reinterpret_cast<V*>(y + i * a.y_row + r * lanes) = sum[i][o][r];
}

// The micro-kernel for a number of output fields.
template <typename T>
using Multiply = void (*)(const MultiplyLayout&, const T*, const T*, int64_t, T*, bool);

template <typename T, int Dim, bool ComplexType, int Columns = max_columns(Dim)>
Multiply<T> multiply_for(int64_t columns) {
  if constexpr (Columns > 0)
    return columns == Columns ? multiply<T, Dim, ComplexType, Columns>
                              : multiply_for<T, Dim, ComplexType, Columns - 1>(columns);
  return nullptr;
}

template <typename T>
Multiply<T> multiply_for(const Irrep& irrep, int64_t columns) {
  return irrep.dim == 1       ? multiply_for<T, 1, false>(columns)
         : irrep.complex_type ? multiply_for<T, 2, true>(columns)
                              : multiply_for<T, 2, false>(columns);
}

// Spreads the fetching of the next image, and of the lines that this tile's results go to, over the micro-kernels.
struct Prefetch {
  LinePrefetch x;
  const char *y = nullptr, *y_end = nullptr;
  int64_t y_plane = 0, y_lines = 0, y_quota = 0;

  void operator()() {
    x();
    for (int64_t i = 0; i < y_quota && y < y_end; ++i, y += y_plane)
      for (int64_t l = 0; l < y_lines; ++l) __builtin_prefetch(y + l * LinePrefetch::line, 1, 2);
  }
};

// Recursion over irreps and their columns i', not loops: the sums must stay in registers.
template <typename T, typename Group, int Dim, int Columns, int Rows, int Index = 0, int I = 0, int Plane = 0,
          typename V, int Order, int Planes>
__attribute__((always_inline)) inline void direct_irreps(const V (&f)[Rows][Order], const T* __restrict__ w,
                                                         V (&sum)[Planes][Columns][Rows]) {
  if constexpr (Index < Group::table.irrep_count) {
    constexpr Irrep irrep = Group::table.irreps[Index];
    if constexpr (irrep.dim != Dim || I == irrep.columns()) {
      direct_irreps<T, Group, Dim, Columns, Rows, Index + 1, 0, Plane>(f, w, sum);
    } else {
#pragma GCC unroll 32
      for (int j = 0; j < Dim; ++j)
#pragma GCC unroll 32
        for (int o = 0; o < Columns; ++o) {
          const T weight = w[(Plane + j) * Columns + o];
#pragma GCC unroll 32
          for (int i = 0; i < Dim; ++i)
#pragma GCC unroll 32
            for (int r = 0; r < Rows; ++r) {
              V& to = sum[Plane + i][o][r];
              if (irrep.complex_type && i == 1 && j == 1)
                to -= f[r][irrep.plane[i][j]] * weight;
              else
                to += f[r][irrep.plane[i][j]] * weight;
            }
        }
      direct_irreps<T, Group, Dim, Columns, Rows, Index, I + 1, Plane + Dim>(f, w, sum);
    }
  }
}

template <typename T, typename Group, int Dim, int Columns, int Rows, int Index = 0, int I = 0, int Plane = 0,
          typename V, int Planes>
__attribute__((always_inline)) inline void direct_store(const V (&sum)[Planes][Columns][Rows], int o, T* y,
                                                        int64_t y_plane) {
  if constexpr (Index < Group::table.irrep_count) {
    constexpr Irrep irrep = Group::table.irreps[Index];
    if constexpr (irrep.dim != Dim || I == irrep.columns()) {
      direct_store<T, Group, Dim, Columns, Rows, Index + 1, 0, Plane>(sum, o, y, y_plane);
    } else {
#pragma GCC unroll 32
      for (int i = 0; i < Dim; ++i)
#pragma GCC unroll 32
        for (int r = 0; r < Rows; ++r)
          *reinterpret_cast<V*>(y + irrep.plane[i][I] * y_plane + r * Vector<T>::lanes) = sum[Plane + i][o][r];
      direct_store<T, Group, Dim, Columns, Rows, Index, I + 1, Plane + Dim>(sum, o, y, y_plane);
    }
  }
}

// The irreps of one dimension, computed without a buffer: butterflies in registers, used at once.
template <typename Group, int Dim>
constexpr int plane_count() {
  int planes = 0;
  for (const Irrep& irrep : Group::table.irreps)
    if (irrep.dim == Dim) planes += irrep.dim * irrep.columns();
  return planes;
}

template <typename Group, int Dim>
constexpr int direct_rows() {  // vectors of pixels
  return plane_count<Group, Dim>() >= 4 ? 1 : 2;
}

template <typename Group, int Dim>
constexpr int direct_columns() {  // output fields
  return plane_count<Group, Dim>() ? kAccumulators / (plane_count<Group, Dim>() * direct_rows<Group, Dim>()) : 0;
}

template <typename T>
struct DirectArguments {
  const T* x;
  int64_t fields, field_stride, orbits;
  const int64_t* orbit_offset;  // [orbit][g]
  const T* w;                   // [step][irrep][i'][j][field]
  T* y;
  int64_t y_column, y_plane;
  Prefetch* prefetch;
};

template <typename T, typename Group, int Dim, int Columns>
void direct(const DirectArguments<T>& arguments) {
  using V = typename Vector<T>::Aligned;
  using Unaligned = typename Vector<T>::Unaligned;
  constexpr int lanes = Vector<T>::lanes, order = Group::table.order, Rows = direct_rows<Group, Dim>();
  constexpr int Planes = plane_count<Group, Dim>();
  const DirectArguments<T> a = arguments;
  V sum[Planes][Columns][Rows];
#pragma GCC unroll 32
  for (int p = 0; p < Planes; ++p)
#pragma GCC unroll 32
    for (int o = 0; o < Columns; ++o)
#pragma GCC unroll 32
      for (int r = 0; r < Rows; ++r) sum[p][o][r] = V{};

  // One loop over all steps: with a loop per field the compiler keeps the sums in memory between fields.
  const T* field = a.x;
  const T* __restrict__ w = a.w;
  const T* const end = w + a.fields * a.orbits * Planes * Columns;
  const int64_t* offset = a.orbit_offset;
  const int64_t* const last = offset + a.orbits * order;
  while (w < end) {
    V f[Rows][order];
#pragma GCC unroll 32
    for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 32
      for (int g = 0; g < order; ++g) f[r][g] = *reinterpret_cast<const Unaligned*>(field + offset[g] + r * lanes);
      transform<Group>(f[r]);
    }
    direct_irreps<T, Group, Dim, Columns, Rows>(f, w, sum);
    w += Planes * Columns;
    offset += order;
    if (offset == last) {
      offset = a.orbit_offset;
      field += a.field_stride;
      (*a.prefetch)();
    }
  }
  T* y = a.y;
#pragma GCC unroll 32
  for (int o = 0; o < Columns; ++o, y += a.y_column) direct_store<T, Group, Dim, Columns, Rows>(sum, o, y, a.y_plane);
}

template <typename T>
using Direct = void (*)(const DirectArguments<T>&);

template <typename T, typename Group, int Dim, int Columns = direct_columns<Group, Dim>()>
Direct<T> direct_for(int64_t columns) {
  if constexpr (Columns > 0) {
    if (columns == Columns) return direct<T, Group, Dim, Columns>;
    return direct_for<T, Group, Dim, Columns - 1>(columns);
  }
  return nullptr;
}
