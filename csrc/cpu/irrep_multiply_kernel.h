// The inner loops of irrep fprop: matrix products whose lanes are pixels. Included after irrep_tile_kernel.h, in the same
// namespace.
//
// A micro-kernel adds up steps for some output fields and keeps their sums in registers. The first one of a tile takes the
// numbers of each step from the planes through the butterflies, multiplies them while they are in registers, and leaves
// them in a buffer for the others.
//
// Exactness rests on two things here: both rows of an irrep take the same sequence of multiply-adds (for the complex type
// first against wr, then against wi), and every pixel goes through the same instructions wherever tile borders fall.

// One column i' of an irrep: what it needs of X̂ is all of the irrep's planes.
struct IrrepColumn {
  Irrep irrep;
  int i;
};
template <typename Group>
constexpr int irrep_column_count() {
  int count = 0;
  for (const Irrep& irrep : Group::table.irreps) count += irrep.columns();
  return count;
}
template <typename Group>
constexpr auto irrep_columns() {
  std::array<IrrepColumn, irrep_column_count<Group>()> columns{};
  int count = 0;
  for (const Irrep& irrep : Group::table.irreps)
    for (int i = 0; i < irrep.columns(); ++i) columns[count++] = {irrep, i};
  return columns;
}

// Vectors of pixels in a tile. A weight of an irrep of two rows serves two multiply-adds a vector, others one; two are as
// many as loads can follow.
template <typename Group>
constexpr int tile_vectors() {
  for (const Irrep& irrep : Group::table.irreps)
    if (irrep.dim > 1 && kVectorRegisters >= 32) return 1;
  return 2;
}

// A micro-kernel takes all columns of irreps where there are registers enough, else one.
template <typename Group>
constexpr int kernel_parts() {
  return kVectorRegisters >= 32 ? 1 : irrep_column_count<Group>();
}
// The columns of a part.
template <typename Group, int Part>
constexpr int first_irrep_column() {
  return kernel_parts<Group>() == 1 ? 0 : Part;
}
template <typename Group, int Part>
constexpr int last_irrep_column() {
  return kernel_parts<Group>() == 1 ? irrep_column_count<Group>() : Part + 1;
}
// How many vectors it takes at a time: where registers are few, the rows of an irrep leave room for one.
template <typename Group, int Part>
constexpr int kernel_vectors() {
  const bool rows = irrep_columns<Group>()[first_irrep_column<Group, Part>()].irrep.dim > 1;
  return kernel_parts<Group>() > 1 && rows ? 1 : tile_vectors<Group>();
}
// Multiply-adds that processors have under way.
constexpr int kBusyMultiplies = 8;
// The planes of the result that they give, and for how many output fields at most.
template <typename Group, int Part>
constexpr int kernel_planes() {
  int planes = 0;
  for (int at = first_irrep_column<Group, Part>(); at < last_irrep_column<Group, Part>(); ++at)
    planes += irrep_columns<Group>()[at].irrep.dim;
  return planes;
}
template <typename Group, int Part>
constexpr int kernel_fields() {
  return kAccumulators / (kernel_planes<Group, Part>() * kernel_vectors<Group, Part>());
}

// How many fields call number `call` of `calls` takes, with so many left. The first call of all does the butterflies as
// well. A large one hides them where registers are left for them; else it is as small as takes no more calls, and as keeps
// the multipliers busy.
template <typename Group, int Part>
constexpr int64_t call_fields(int64_t fields, int64_t call, int64_t calls) {
  constexpr int sums = kernel_planes<Group, Part>() * kernel_vectors<Group, Part>(),
                most = kernel_fields<Group, Part>();
  const int64_t even = fields / (calls - call);
  if (Part > 0 || call > 0 || calls == 1) return even;
  if (kAccumulators + Group::table.order * tile_vectors<Group>() + 2 <= kVectorRegisters)
    return (fields + calls - 1) / calls;
  constexpr int busy = std::min(most, (kBusyMultiplies + sums - 1) / sums);
  return std::max<int64_t>(fields - (calls - 1) * most, busy);
}
template <typename Group, int Part>
constexpr int64_t call_count(int64_t fields) {
  constexpr int most = kernel_fields<Group, Part>();
  return (fields + most - 1) / most;
}
// Whether there is a micro-kernel for every call, of one call and of several. Shown to the compiler, since it is asked of
// instruction sets that the processor at hand may lack.
template <typename Group, int Part>
constexpr bool calls_have_kernels() {
  constexpr int most = kernel_fields<Group, Part>();
  for (int64_t fields = 1; fields <= 4 * most; ++fields) {
    int64_t left = fields;
    for (int64_t call = 0, calls = call_count<Group, Part>(fields); call < calls; ++call) {
      const int64_t taken = call_fields<Group, Part>(left, call, calls);
      if (taken < 1 || taken > most) return false;
      left -= taken;
    }
    if (left != 0) return false;
  }
  return true;
}

// The planes of X̂ that some columns of irreps need, as a mask.
template <typename Group>
constexpr unsigned planes_read(int at, int last) {
  unsigned planes = 0;
  for (; at < last; ++at) {
    const Irrep irrep = irrep_columns<Group>()[at].irrep;
    for (int row = 0; row < irrep.dim; ++row)
      for (int j = 0; j < irrep.dim; ++j) planes |= 1u << irrep.plane[row][j];
  }
  return planes;
}

// sum[plane][field][vector] += Σ_j f[vector][row, j] · w[j][field] for the columns of irreps from `At` to `Last`. Recursion,
// not loops: the sums must stay in registers.
template <typename T, typename Group, int At, int Last, int Fields, int Plane = 0, typename V, int Vectors, int Order,
          int Planes>
__attribute__((always_inline)) inline void multiply_step(const V (&f)[Vectors][Order], const T* __restrict__ w,
                                                         V (&sum)[Planes][Fields][Vectors]) {
  if constexpr (At < Last) {
    constexpr Irrep irrep = irrep_columns<Group>()[At].irrep;
#pragma GCC unroll 32
    for (int j = 0; j < irrep.dim; ++j)
#pragma GCC unroll 32
      for (int o = 0; o < Fields; ++o) {
        const T weight = w[(Plane + j) * Fields + o];
#pragma GCC unroll 32
        for (int row = 0; row < irrep.dim; ++row)
#pragma GCC unroll 32
          for (int v = 0; v < Vectors; ++v) {
            V& to = sum[Plane + row][o][v];
            if (irrep.complex_type && row == 1 && j == 1)
              to -= f[v][irrep.plane[row][j]] * weight;
            else
              to += f[v][irrep.plane[row][j]] * weight;
          }
      }
    multiply_step<T, Group, At + 1, Last, Fields, Plane + irrep.dim>(f, w, sum);
  }
}

// The same for one column where registers are few: numbers are loaded when they are needed.
template <typename T, typename Group, int At, int Fields, typename Step, typename V, int Vectors, int Planes>
__attribute__((always_inline)) inline void multiply_step_of_column(const Step& step, const T* __restrict__ w,
                                                                   V (&sum)[Planes][Fields][Vectors]) {
  constexpr Irrep irrep = irrep_columns<Group>()[At].irrep;
  V f[irrep.dim][Vectors];
#pragma GCC unroll 2
  for (int j = 0; j < irrep.dim; ++j) {
    if (j == 0 || !irrep.complex_type) {
#pragma GCC unroll 2
      for (int row = 0; row < irrep.dim; ++row)
#pragma GCC unroll 2
        for (int v = 0; v < Vectors; ++v) f[row][v] = step.number(irrep.plane[row][j], v);
    }
#pragma GCC unroll 32
    for (int o = 0; o < Fields; ++o) {
      const T weight = w[j * Fields + o];
#pragma GCC unroll 2
      for (int row = 0; row < irrep.dim; ++row)
#pragma GCC unroll 2
        for (int v = 0; v < Vectors; ++v) {
          V& to = sum[row][o][v];
          if (irrep.complex_type && row == 1 && j == 1)
            to -= f[0][v] * weight;
          else
            to += f[irrep.complex_type ? row ^ j : row][v] * weight;
        }
    }
  }
}

// Calls function(sum, where it is kept) for each sum, y being [field][plane][vector of the tile].
template <typename T, typename Group, int At, int Last, int Fields, int Plane = 0, typename V, int Vectors, int Planes,
          typename Function>
__attribute__((always_inline)) inline void for_each_sum(V (&sum)[Planes][Fields][Vectors], T* y, Function function) {
  if constexpr (At < Last) {
    constexpr IrrepColumn column = irrep_columns<Group>()[At];
#pragma GCC unroll 32
    for (int o = 0; o < Fields; ++o)
#pragma GCC unroll 32
      for (int row = 0; row < column.irrep.dim; ++row)
#pragma GCC unroll 32
        for (int v = 0; v < Vectors; ++v)
          function(sum[Plane + row][o][v],
                   y + ((o * Group::table.order + column.irrep.plane[row][column.i]) * tile_vectors<Group>() + v) *
                           Vector<T>::lanes);
    for_each_sum<T, Group, At + 1, Last, Fields, Plane + column.irrep.dim>(sum, y, function);
  }
}

// Where the numbers of the steps lie in the planes: at the offsets of each orbit in turn, then in the next field.
struct PlaneSteps {
  const int64_t* orbit_offset;  // [orbit][g]
  const int64_t* orbit_end;
  int64_t field;  // from one to the next
  int64_t gap;    // TwoRuns
};

// Where tiles store their results, instead of their sums.
template <typename T>
struct Results {
  T* y;                    // of the first field
  const T* bias;           // of the first field, or nullptr
  int64_t field, element;  // from one to the next
  bool relu;
};

// f[plane] of one field and vector.
template <typename Group, int At, int Last, int Plane = 0, typename V, int Vectors, int Fields, int Planes>
__attribute__((always_inline)) inline void gather_planes(const V (&sum)[Planes][Fields][Vectors], int o, int v,
                                                         V (&f)[Group::table.order]) {
  if constexpr (At < Last) {
    constexpr IrrepColumn column = irrep_columns<Group>()[At];
#pragma GCC unroll 32
    for (int row = 0; row < column.irrep.dim; ++row) f[column.irrep.plane[row][column.i]] = sum[Plane + row][o][v];
    gather_planes<Group, At + 1, Last, Plane + column.irrep.dim>(sum, o, v, f);
  }
}

// Calls function(f[g], g) for each g. Recursion, not a loop: f must stay in registers.
template <int G = 0, typename V, int Order, typename Function>
__attribute__((always_inline)) inline void for_each_element(V (&f)[Order], Function function) {
  if constexpr (G < Order) {
    function(f[G], G);
    for_each_element<G + 1>(f, function);
  }
}

// What follows the inverse transform.
template <typename T, typename V, int Order, typename S>
__attribute__((always_inline)) inline void add_bias_and_relu(V (&f)[Order], const S* bias, bool relu) {
  if (bias) for_each_element(f, [&](V& each, int) { each += T(widen(*bias)); });
  if (relu) for_each_element(f, [](V& each, int) { each = each < 0 ? V{} : each; });  // NaN stays NaN
}

// Stores the planes of a mask.
template <typename Group, unsigned Planes, int G = 0, typename V, typename T>
__attribute__((always_inline)) inline void store_planes(const V (&f)[Group::table.order], T* to, int64_t stride) {
  if constexpr (G < Group::table.order) {
    if constexpr (Planes >> G & 1) *reinterpret_cast<V*>(to + G * stride) = f[G];
    store_planes<Group, Planes, G + 1>(f, to, stride);
  }
}

// Takes steps from the planes and leaves what others need of them in the buffer, [step][plane][vector].
template <typename T, typename Group, unsigned Kept, bool Crosses>
struct FromPlanes {
  using V = typename Vector<T>::Aligned;
  static constexpr int order = Group::table.order, vectors = tile_vectors<Group>(), lanes = Vector<T>::lanes;

  PlaneSteps steps;
  const T* field;
  const int64_t* offset;
  T* buffer;
  Prefetch& prefetch;
  int64_t ahead[vectors];  // where rows end within the tile: from the first vector to this one,
  TwoRuns runs[vectors];   // and what it is loaded in

  FromPlanes(const PlaneSteps& steps, const T* field, const int64_t* offset, T* buffer, Prefetch& prefetch,
             const TilePlace<vectors>& place)
      : steps(steps), field(field + place.vector[0].from), offset(offset), buffer(buffer), prefetch(prefetch) {
    for (int v = 0; v < vectors; ++v) {
      ahead[v] = place.vector[v].from - place.vector[0].from;
      runs[v] = {steps.gap, place.vector[v].behind};
    }
  }

  template <unsigned Planes>
  __attribute__((always_inline)) void next(V (&f)[vectors][order]) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      if constexpr (Crosses)
        load_elements<Group>(f[v], field + ahead[v], offset, runs[v]);
      else
        load_elements<Group>(f[v], field + v * lanes, offset);
      transform<Group>(f[v]);
      store_planes<Group, Kept>(f[v], buffer + v * lanes, vectors * lanes);
    }
    buffer += order * vectors * lanes;
    offset += order;
    if (offset == steps.orbit_end) {
      offset = steps.orbit_offset;
      field += steps.field;
      prefetch();
    }
  }

  struct Step {
    V f[vectors][order];
    __attribute__((always_inline)) V number(int plane, int v) const { return f[v][plane]; }
  };
  __attribute__((always_inline)) Step next() {
    Step step;
    next<0>(step.f);
    return step;
  }
};

template <typename T, typename Group>
struct FromBuffer {
  using V = typename Vector<T>::Aligned;
  static constexpr int order = Group::table.order, vectors = tile_vectors<Group>(), lanes = Vector<T>::lanes;

  const T* buffer;

  template <unsigned Planes>
  __attribute__((always_inline)) void next(V (&f)[vectors][order]) {
    load<Planes>(f);
    buffer += order * vectors * lanes;
  }

  struct Step {
    const T* at;
    __attribute__((always_inline)) V number(int plane, int v) const {
      V value = *reinterpret_cast<const V*>(at + (plane * vectors + v) * lanes);
      keep_in_register(value);
      return value;
    }
  };
  __attribute__((always_inline)) Step next() {
    const Step step{buffer};
    buffer += order * vectors * lanes;
    return step;
  }

 private:
  template <unsigned Planes, int G = 0>
  __attribute__((always_inline)) void load(V (&f)[vectors][order]) {
    if constexpr (G < order) {
      if constexpr (Planes >> G & 1)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) {
          f[v][G] = *reinterpret_cast<const V*>(buffer + (G * vectors + v) * lanes);
          keep_in_register(f[v][G]);
        }
      load<Planes, G + 1>(f);
    }
  }
};

// Each element's numbers in the lanes of a run, or of two.
template <typename Group, int G = 0, typename V, typename T>
__attribute__((always_inline)) inline void store_runs(const V (&f)[Group::table.order], T* to, int64_t stride,
                                                      const VectorPlace& place) {
  if constexpr (G < Group::table.order) {
    store_lanes(to + place.to[0], f[G], place.stored[0]);
    if (place.stored[1]) store_lanes(to + place.to[1], f[G], place.stored[1]);
    store_runs<Group, G + 1>(f, to + stride, stride, place);
  }
}

// Whether a micro-kernel has all planes of its fields, and so can finish them.
template <typename Group>
constexpr bool finishes() {
  return kMasks && kernel_parts<Group>() == 1;
}

// sums[field][plane] += Σ_step X̂[step] · w[step][column of an irrep][j][field]; `first` starts from zero. With `results`
// they are finished and stored there.
template <typename T, typename Group, int Part, int Fields, typename Source>
__attribute__((always_inline)) inline void multiply(Source source, const T* __restrict__ w, int64_t steps, T* sums,
                                                    int64_t field, bool first,
                                                    const TilePlace<tile_vectors<Group>()>& place,
                                                    const Results<T>* results) {
  using V = typename Vector<T>::Aligned;
  constexpr int At = first_irrep_column<Group, Part>(), Last = last_irrep_column<Group, Part>();
  constexpr int Planes = kernel_planes<Group, Part>(), vectors = kernel_vectors<Group, Part>();
  V sum[Planes][Fields][vectors];
  T* y = sums + field * (Group::table.order * tile_vectors<Group>() * Vector<T>::lanes);
  if (first)
    for_each_sum<T, Group, At, Last, Fields>(sum, y, [](V& each, T*) { each = V{}; });
  else
    for_each_sum<T, Group, At, Last, Fields>(sum, y, [](V& each, T* at) { each = *reinterpret_cast<const V*>(at); });
#pragma GCC unroll 2  // counting takes ports of the multipliers
  for (const T* const end = w + steps * Planes * Fields; w != end; w += Planes * Fields) {
    if constexpr (kernel_parts<Group>() == 1) {
      V f[vectors][Group::table.order];
      source.template next<planes_read<Group>(At, Last)>(f);
      multiply_step<T, Group, At, Last, Fields>(f, w, sum);
    } else {
      multiply_step_of_column<T, Group, At, Fields>(source.next(), w, sum);
    }
  }
  if constexpr (finishes<Group>())
    if (results) {
      const T* bias = results->bias ? results->bias + field : nullptr;
      T* to = results->y + field * results->field;
#pragma GCC unroll 32
      for (int o = 0; o < Fields; ++o, to += results->field) {
        for (int v = 0; v < vectors; ++v) {
          V f[Group::table.order];
          gather_planes<Group, At, Last>(sum, o, v, f);
          transpose_transform<Group>(f);
          add_bias_and_relu<T>(f, bias ? bias + o : nullptr, results->relu);
          store_runs<Group>(f, to, results->element, place.vector[v]);
        }
      }
      return;
    }
  asm("" : "+r"(y));  // or the compiler keeps a pointer per field alive across the loop
  for_each_sum<T, Group, At, Last, Fields>(sum, y, [](const V& each, T* at) { *reinterpret_cast<V*>(at) = each; });
}

template <typename T, typename Group, unsigned Kept, int Fields>
void multiply_planes(const PlaneSteps& planes, const T* from, const int64_t* offset, T* buffer, Prefetch& prefetch,
                     const T* w, int64_t steps, T* sums, int64_t field, bool first,
                     const TilePlace<tile_vectors<Group>()>& place, const Results<T>* results) {
  static_assert(kernel_vectors<Group, 0>() == tile_vectors<Group>(), "the first call leaves all of the tile");
  if constexpr (kMasks)
    if (place.load == TileLoad::Crossing)
      return multiply<T, Group, 0, Fields>(
          FromPlanes<T, Group, Kept, true>{planes, from, offset, buffer, prefetch, place}, w, steps, sums, field, first,
          place, results);
  multiply<T, Group, 0, Fields>(FromPlanes<T, Group, Kept, false>{planes, from, offset, buffer, prefetch, place}, w,
                                steps, sums, field, first, place, results);
}
template <typename T, typename Group, int Part, int Fields>
void multiply_buffer(const T* buffer, const T* w, int64_t steps, T* sums, int64_t field, bool first,
                     const TilePlace<tile_vectors<Group>()>& place, const Results<T>* results) {
  constexpr int vectors = kernel_vectors<Group, Part>(), lanes = Vector<T>::lanes;
  for (int v = 0; v < tile_vectors<Group>(); v += vectors)
    multiply<T, Group, Part, Fields>(FromBuffer<T, Group>{buffer + v * lanes}, w, steps, sums + v * lanes, field, first,
                                     place, results);
}

template <typename T, typename Group>
using MultiplyPlanes = void (*)(const PlaneSteps&, const T*, const int64_t*, T*, Prefetch&, const T*, int64_t, T*,
                                int64_t, bool, const TilePlace<tile_vectors<Group>()>&, const Results<T>*);
template <typename T, typename Group>
using MultiplyBuffer = void (*)(const T*, const T*, int64_t, T*, int64_t, bool, const TilePlace<tile_vectors<Group>()>&,
                                const Results<T>*);

// The micro-kernels for a number of output fields.
template <typename T, typename Group, unsigned Kept, int Fields = kernel_fields<Group, 0>()>
MultiplyPlanes<T, Group> multiply_planes_for(int64_t fields) {
  if constexpr (Fields > 0)
    return fields == Fields ? multiply_planes<T, Group, Kept, Fields>
                            : multiply_planes_for<T, Group, Kept, Fields - 1>(fields);
  return nullptr;
}
template <typename T, typename Group, int Part, int Fields = kernel_fields<Group, Part>()>
MultiplyBuffer<T, Group> multiply_buffer_for(int64_t fields) {
  if constexpr (Fields > 0)
    return fields == Fields ? multiply_buffer<T, Group, Part, Fields>
                            : multiply_buffer_for<T, Group, Part, Fields - 1>(fields);
  return nullptr;
}
