// Included once per instruction set by contract.cpp, inside a namespace that sets kVectorBytes and kVectorRegisters;
// hence no include guard and no includes. Vector lanes run over the channels c of one image.

constexpr int kTileRows = kVectorRegisters >= 32 ? 9 : 5;
constexpr int kTileVectors = 2;

// The first `count` lanes, the others 0; through memory of its own, so that the sums stay in registers.
template <typename T>
typename Vector<T>::Unaligned load_part(const T* from, int64_t count) {
  typename Vector<T>::Unaligned value{};
  std::memcpy(&value, from, count * sizeof(T));
  return value;
}

// out[row][c] (+)= Σ_step factor[step][row] · in[step][c] for Rows rows and Vectors vectors of c. Rows of `in` and
// `out` lie at offsets (or, without them, a stride) from each other.
template <typename T>
struct Combination {
  int64_t rows, steps, channels;
  const T* factor;
  int64_t factor_row, factor_step;
  const T* in;
  const int64_t* in_offsets;
  int64_t in_stride;
  T* out;
  const int64_t* out_offsets;
  int64_t out_stride;

  int64_t in_at(int64_t step) const { return in_offsets ? in_offsets[step] : step * in_stride; }
  int64_t out_at(int64_t row) const { return out_offsets ? out_offsets[row] : row * out_stride; }
};

template <typename T, bool Add, int Rows, int Vectors>
void combine_tile(const Combination<T>& a, int64_t row, int64_t c) {
  using V = typename Vector<T>::Unaligned;
  constexpr int lanes = Vector<T>::lanes;
  V sum[Rows][Vectors] = {};
  const T* __restrict__ factor = a.factor + row * a.factor_row;
  const T* const in = a.in + c;
  for (int64_t step = 0; step < a.steps; ++step, factor += a.factor_step) {
    const T* from = in + a.in_at(step);
    V value[Vectors];
#pragma GCC unroll 16
    for (int v = 0; v < Vectors; ++v) value[v] = *reinterpret_cast<const V*>(from + v * lanes);
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
      const T weight = factor[r * a.factor_row];
#pragma GCC unroll 16
      for (int v = 0; v < Vectors; ++v) sum[r][v] += weight * value[v];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r) {
    T* to = a.out + a.out_at(row + r) + c;
#pragma GCC unroll 16
    for (int v = 0; v < Vectors; ++v, to += lanes) {
      const int64_t left = a.channels - c - v * lanes;
      if (left >= lanes) {
        V& all = *reinterpret_cast<V*>(to);
        all = Add ? all + sum[r][v] : sum[r][v];
      } else {
        const V all = Add ? load_part(to, left) + sum[r][v] : sum[r][v];
        std::memcpy(to, &all, left * sizeof(T));
      }
    }
  }
}

template <typename T, bool Add, int Rows>
void combine_rows(const Combination<T>& a, int64_t row) {
  constexpr int lanes = Vector<T>::lanes;
  int64_t c = 0;
  for (; a.channels - c > lanes; c += kTileVectors * lanes) combine_tile<T, Add, Rows, kTileVectors>(a, row, c);
  if (c < a.channels) combine_tile<T, Add, Rows, 1>(a, row, c);
}

template <typename T, bool Add, int Rows = kTileRows>
void combine_some(const Combination<T>& a, int64_t row, int64_t count) {
  if constexpr (Rows > 0) {
    if (count == Rows) return combine_rows<T, Add, Rows>(a, row);
    combine_some<T, Add, Rows - 1>(a, row, count);
  }
}

template <typename T, bool Add>
void combine(const Combination<T>& a) {
  for (int64_t row = 0, tiles = (a.rows + kTileRows - 1) / kTileRows; tiles > 0; --tiles) {
    const int64_t count = (a.rows - row + tiles - 1) / tiles;  // tiles of about the same size
    combine_some<T, Add>(a, row, count);
    row += count;
  }
}

// A tile of dφ of one pixel: Terms terms from k on, Hiddens hidden features from h on.
template <typename T, int Terms, int Hiddens>
void hgrad_tile(const ContractParams& p, const T* x, const T* dz, T* dphi, int64_t k, int64_t h) {
  using V = typename Vector<T>::Unaligned;
  constexpr int lanes = Vector<T>::lanes;
  V sum[Terms][Hiddens] = {};
  const T* rows[Terms];
  for (int i = 0; i < Terms; ++i) rows[i] = x + p.term_offsets[k + i];
  const T* gradient = dz + h * p.in_fields;
  const int64_t image = p.hidden * p.in_fields;
  for (int64_t b = 0; b < p.batch; ++b) {
    const int64_t at = b * p.in_fields;
    for (int64_t c = 0; c < p.in_fields; c += lanes) {
      const int64_t left = p.in_fields - c;
      V value[Terms];
#pragma GCC unroll 16
      for (int i = 0; i < Terms; ++i) {
        const T* from = rows[i] + at + c;
        value[i] = left >= lanes ? *reinterpret_cast<const V*>(from) : load_part(from, left);
      }
#pragma GCC unroll 16
      for (int j = 0; j < Hiddens; ++j) {
        const T* from = gradient + b * image + j * p.in_fields + c;
        const V other = left >= lanes ? *reinterpret_cast<const V*>(from) : load_part(from, left);
#pragma GCC unroll 16
        for (int i = 0; i < Terms; ++i) sum[i][j] += value[i] * other;
      }
    }
  }
  for (int i = 0; i < Terms; ++i)
    for (int j = 0; j < Hiddens; ++j) {
      T parts[lanes];
      std::memcpy(parts, &sum[i][j], sizeof parts);
      for (int half = lanes / 2; half > 0; half /= 2)
        for (int l = 0; l < half; ++l) parts[l] += parts[l + half];
      dphi[(k + i) * p.hidden + h + j] = parts[0];
    }
}

// dz is the large one: many terms at a time read it seldom.
constexpr int kTileTerms = kVectorRegisters >= 32 ? 9 : 4, kTileHiddens = 2;

template <typename T, int Terms = kTileTerms>
void hgrad_terms(const ContractParams& p, const T* x, const T* dz, T* dphi, int64_t k, int64_t count) {
  if constexpr (Terms > 0) {
    if (count < Terms) return hgrad_terms<T, Terms - 1>(p, x, dz, dphi, k, count);
    int64_t h = 0;
    for (; h + kTileHiddens <= p.hidden; h += kTileHiddens) hgrad_tile<T, Terms, kTileHiddens>(p, x, dz, dphi, k, h);
    for (; h < p.hidden; ++h) hgrad_tile<T, Terms, 1>(p, x, dz, dphi, k, h);
  }
}

// to[j][i] (+)= from[i][j] for `rows` rows of `from`, of `columns` numbers: squares of N x N in registers, smaller ones
// at the ends.
template <typename T, bool Add, int N = Vector<T>::lanes>
void transpose(const T* from, int64_t from_row, T* to, int64_t to_row, int64_t rows, int64_t columns) {
  if constexpr (N < 4) {
    for (int64_t j = 0; j < columns; ++j)
      for (int64_t i = 0; i < rows; ++i) {
        T& number = to[j * to_row + i];
        number = Add ? number + from[i * from_row + j] : from[i * from_row + j];
      }
  } else {
    using Row = typename Square<T, N>::Row;
    const int64_t whole_rows = rows / N * N, whole_columns = columns / N * N;
    for (int64_t i = 0; i < whole_rows; i += N)
      for (int64_t j = 0; j < whole_columns; j += N) {
        Row row[N];
#pragma GCC unroll 16
        for (int k = 0; k < N; ++k) row[k] = *reinterpret_cast<const Row*>(from + (i + k) * from_row + j);
        Square<T, N>::transpose(row, std::make_index_sequence<N>());
#pragma GCC unroll 16
        for (int k = 0; k < N; ++k) {
          Row& all = *reinterpret_cast<Row*>(to + (j + k) * to_row + i);
          all = Add ? all + row[k] : row[k];
        }
      }
    if (whole_columns < columns)
      transpose<T, Add, N / 2>(from + whole_columns, from_row, to + whole_columns * to_row, to_row, whole_rows,
                               columns - whole_columns);
    if (whole_rows < rows)
      transpose<T, Add, N / 2>(from + whole_rows * from_row, from_row, to + whole_rows, to_row, rows - whole_rows,
                               columns);
  }
}

// visit(offset in the map, offset in the pixels, fields) of some fields of one image and element in one row. Innermost
// the rows: the fields of a map lie in as many pages of memory, and its rows in the same.
template <int Fields, typename Visit>
void for_each_line(const ContractMap& s, MapRows rows, Visit visit) {
  const int64_t pixel = s.elements * s.batch * s.fields;
  const int64_t first = std::max<int64_t>(rows.padding - rows.first, 0),
                last = std::min(rows.count, s.rows + rows.padding - rows.first);
  for (int64_t m = 0; m < s.elements; ++m)
    for (int64_t b = 0; b < s.batch; ++b)
      for (int64_t c = 0; c < s.fields; c += Fields)
        for (int64_t i = first; i < last; ++i) {
          const int64_t row = rows.first + i - rows.padding;
          visit((((b * s.fields + c) * s.elements + m) * s.rows + row) * s.columns,
                (i * (s.columns + 2 * rows.padding) + rows.padding) * pixel + (m * s.batch + b) * s.fields + c,
                std::min<int64_t>(Fields, s.fields - c));
        }
}

// The entry points, in one class for each type of numbers.
template <typename T>
struct Contract {
  static void pixels_of_map(const ContractMap& s, const T* map, T* pixels, MapRows rows) {
    const int64_t pixel = s.elements * s.batch * s.fields, border = rows.padding * pixel;
    for (int64_t i = 0; i < rows.count; ++i) {
      const int64_t row = rows.first + i - rows.padding;
      T* line = pixels + i * (s.columns + 2 * rows.padding) * pixel;
      const bool inside = row >= 0 && row < s.rows;
      std::fill_n(line, inside ? border : s.columns * pixel + 2 * border, T(0));
      if (inside) std::fill_n(line + border + s.columns * pixel, border, T(0));
    }
    for_each_line<Vector<T>::lanes>(s, rows, [&](int64_t in_map, int64_t in_pixels, int64_t fields) {
      transpose<T, false>(map + in_map, s.elements * s.rows * s.columns, pixels + in_pixels, pixel, fields, s.columns);
    });
  }

  template <bool Add>
  static void pixels_to_map(const ContractMap& s, const T* pixels, T* map, MapRows rows) {
    for_each_line<Vector<T>::lanes>(s, rows, [&](int64_t in_map, int64_t in_pixels, int64_t fields) {
      transpose<T, Add>(pixels + in_pixels, s.elements * s.batch * s.fields, map + in_map,
                        s.elements * s.rows * s.columns, s.columns, fields);
    });
  }

  static void contract(const ContractParams& p, const T* x, const T* phi, T* z, Sites sites) {
    for (int64_t q = sites.begin; q < sites.end; ++q)
      for (int64_t b = 0; b < p.batch; ++b)
        combine<T, false>({p.hidden, p.terms, p.in_fields, phi + q * p.terms * p.hidden, 1, p.hidden,
                           x + p.at(q) + b * p.in_fields, p.term_offsets, 0,
                           z + ((q - sites.begin) * p.batch + b) * p.hidden * p.in_fields, nullptr, p.in_fields});
  }

  static void contract_dgrad(const ContractParams& p, const T* phi, const T* dz, T* dx, Sites sites) {
    for (int64_t q = sites.begin; q < sites.end; ++q)
      for (int64_t b = 0; b < p.batch; ++b)
        combine<T, true>({p.terms, p.hidden, p.in_fields, phi + q * p.terms * p.hidden, p.hidden, 1,
                          dz + ((q - sites.begin) * p.batch + b) * p.hidden * p.in_fields, nullptr, p.in_fields,
                          dx + p.at(q) + b * p.in_fields, p.term_offsets, 0});
  }

  static void contract_hgrad(const ContractParams& p, const T* x, const T* dz, T* dphi, Sites sites) {
    const int64_t site = p.batch * p.hidden * p.in_fields;
    for (int64_t q = sites.begin; q < sites.end; ++q)
      for (int64_t k = 0, tiles = (p.terms + kTileTerms - 1) / kTileTerms; tiles > 0; --tiles) {
        const int64_t count = (p.terms - k + tiles - 1) / tiles;
        hgrad_terms<T>(p, x + p.at(q), dz + (q - sites.begin) * site, dphi + q * p.terms * p.hidden, k, count);
        k += count;
      }
  }

  static void apply_filters(const ContractParams& p, const T* x, const T* filters, T* y, Sites sites) {
    const int64_t filter = p.in_fields * p.out_fields;
    for (int64_t q = sites.begin; q < sites.end; ++q)
      for (int64_t k = 0; k < p.terms; ++k) {
        const Combination<T> term{p.batch,
                                  p.in_fields,
                                  p.out_fields,
                                  x + p.at(q) + p.term_offsets[k],
                                  p.in_fields,
                                  1,
                                  filters + ((q - sites.begin) * p.terms + k) * filter,
                                  nullptr,
                                  p.out_fields,
                                  y + q * p.batch * p.out_fields,
                                  nullptr,
                                  p.out_fields};
        k ? combine<T, true>(term) : combine<T, false>(term);
      }
  }

  static void apply_dgrad(const ContractParams& p, const T* filters, const T* dy, T* dx, Sites sites) {
    const int64_t filter = p.in_fields * p.out_fields;
    for (int64_t q = sites.begin; q < sites.end; ++q)
      for (int64_t k = 0; k < p.terms; ++k)
        combine<T, true>({p.batch, p.out_fields, p.in_fields, dy + q * p.batch * p.out_fields, p.out_fields, 1,
                          filters + ((q - sites.begin) * p.terms + k) * filter, nullptr, p.in_fields,
                          dx + p.at(q) + p.term_offsets[k], nullptr, p.in_fields});
  }

  static void apply_kgrad(const ContractParams& p, const T* x, const T* dy, T* dfilters, Sites sites) {
    const int64_t filter = p.in_fields * p.out_fields;
    for (int64_t q = sites.begin; q < sites.end; ++q)
      for (int64_t k = 0; k < p.terms; ++k)
        combine<T, false>({p.out_fields, p.batch, p.in_fields, dy + q * p.batch * p.out_fields, 1, p.out_fields,
                           x + p.at(q) + p.term_offsets[k], nullptr, p.in_fields,
                           dfilters + ((q - sites.begin) * p.terms + k) * filter, nullptr, p.in_fields});
  }
};
