// Vectors, and squares of vectors transposed in registers: what all kernels with vectors share.
// Included once per instruction set, inside a namespace that sets kVectorBytes and kVectorRegisters; hence no include
// guard and no includes.

template <typename T>
struct Vector {
  static constexpr int lanes = kVectorBytes / sizeof(T);
  typedef T Aligned __attribute__((vector_size(kVectorBytes), may_alias));
  typedef T Unaligned __attribute__((vector_size(kVectorBytes), may_alias, aligned(alignof(T))));
};

template <typename T, int N>
struct Square {
  typedef T Row __attribute__((vector_size(N * sizeof(T)), may_alias, aligned(alignof(T))));

  // Exchanges bit `Bit` of the row's number with that of the column's, for every bit: a transposition.
  template <int Bit = N / 2, std::size_t... I>
  static __attribute__((always_inline)) inline void transpose(Row (&row)[N], std::index_sequence<I...> lanes) {
    if constexpr (Bit > 0) {
#pragma GCC unroll 16
      for (int i = 0; i < N; ++i)
        if (!(i & Bit)) {
          const Row a = row[i], b = row[i + Bit];
          row[i] = __builtin_shufflevector(a, b, (I & Bit ? int(N + I - Bit) : int(I))...);
          row[i + Bit] = __builtin_shufflevector(a, b, (I & Bit ? int(N + I) : int(I + Bit))...);
        }
      transpose<Bit / 2>(row, lanes);
    }
  }

  // to[j][i] = from[i][j]; the rows of either lie `from_row` and `to_row` numbers apart. Only the rows of `to` from
  // `first` to `last` are written. With `activated`, see masked(); it lies like `from`.
  static void copy(const T* from, int64_t from_row, T* to, int64_t to_row, int first = 0, int last = N,
                   const T* activated = nullptr) {
    Row row[N];
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i) row[i] = *reinterpret_cast<const Row*>(from + i * from_row);
    if (activated) {
#pragma GCC unroll 16
      for (int i = 0; i < N; ++i)
        row[i] = *reinterpret_cast<const Row*>(activated + i * from_row) <= 0 ? Row{} : row[i];
    }
    transpose(row, std::make_index_sequence<N>());
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i)
      if (i >= first && i < last) *reinterpret_cast<Row*>(to + i * to_row) = row[i];
  }
};
