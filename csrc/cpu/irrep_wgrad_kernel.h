// irrep wgrad. Included after irrep_planes_kernel.h, in the same namespace.
//
//   dΨ̂[i'][j] = Σ_pixels Σ_row dŷ[row][i'] · X̂[row][j]
//
// Lanes run over pixels again: every accumulator holds the partial sums of one (output field, step) pair, and its lanes are
// added up once a stretch of pixels, in a fixed order.

constexpr int kWgradSteps = 3;
constexpr int kWgradFields = kAccumulators / kWgradSteps;

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
    for (int i = 0; i < n; ++i) v[i] = add_neighbours(v[2 * i], v[2 * i + 1], std::make_index_sequence<Vector<T>::lanes>());
  return v[0];
}

template <typename T>
struct WgradArguments {
  const T* dy[2];  // per row
  const T* x[2];
  int64_t dy_field, x_step, pixels;
  T* to;  // [field][step]
  int64_t to_field;
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
      V value[Steps];
#pragma GCC unroll 16
      for (int s = 0; s < Steps; ++s) value[s] = *reinterpret_cast<const V*>(x + s * a.x_step);
#pragma GCC unroll 16
      for (int o = 0; o < Fields; ++o) {
        V d = *reinterpret_cast<const V*>(dy + o * a.dy_field);
        keep_in_register(d);
#pragma GCC unroll 16
        for (int s = 0; s < Steps; ++s) {
          if (NegateSecond && r == 1)
            sum[o][s] -= d * value[s];
          else
            sum[o][s] += d * value[s];
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
#pragma GCC unroll 32
    for (int i = 0; i < lanes; ++i)
      if (first + i < Fields * Steps) a.to[(first + i) / Steps * a.to_field + (first + i) % Steps] += total[i];
  }
}

template <typename T>
using WgradMultiply = void (*)(const WgradArguments<T>&);

template <typename T, int Rows, bool NegateSecond, int Fields = kWgradFields>
WgradMultiply<T> wgrad_for(int64_t fields, int64_t steps) {
  if constexpr (Fields > 0) {
    if (fields < Fields) return wgrad_for<T, Rows, NegateSecond, Fields - 1>(fields, steps);
    return steps == 3   ? wgrad_multiply<T, Rows, NegateSecond, Fields, 3>
           : steps == 2 ? wgrad_multiply<T, Rows, NegateSecond, Fields, 2>
                        : wgrad_multiply<T, Rows, NegateSecond, Fields, 1>;
  }
  return nullptr;
}

template <typename S, typename Group>
class IrrepWgrad final : public IrrepWgradPlan {
  using T = accumulate_t<S>;
  using Vec = typename Vector<T>::Aligned;
  static constexpr int lanes = Vector<T>::lanes, order = Group::table.order;
  static constexpr int64_t kMaxStretch = 26;  // vectors: kWgradFields rows of dŷ stay in the first-level cache
  static constexpr int64_t kMaxChunks = 8;    // parts of the batch that are summed apart, each in memory of its own

 public:
  explicit IrrepWgrad(const IrrepWgradParams& params)
      : p_(params), s_(p_.shape), layout_(s_, kMaxStretch * lanes, lanes), orbits_(orbits(s_)),
        orbit_offset_(orbit_offsets(s_, orbits_, layout_)), orbit_count_(static_cast<int64_t>(orbits_.size())),
        chunks_(std::max<int64_t>(1, std::min(s_.batch, kMaxChunks))) {
    const int64_t vectors = (layout_.flat + lanes - 1) / lanes, stretches = (vectors + kMaxStretch - 1) / kMaxStretch;
    stretch_ = (vectors + stretches - 1) / stretches * lanes;
    row_ = stretch_ + lanes;  // rows at a power of two would share cache sets
    sums_.resize(s_.groups * chunks_ * numbers());
  }

  int64_t units() const override { return s_.groups * chunks_; }

  void run(int64_t begin, int64_t end) override {
    const int64_t dy_planes = s_.out_fields * order, dy_plane = (layout_.flat + stretch_ + lanes - 1) / lanes * lanes;
    Scratch<T> planes_scratch(s_.in_fields * layout_.field), dy_scratch(dy_planes * dy_plane);
    Scratch<T> forward_scratch(orbit_count_ * order * row_), dy_hat_scratch(dy_planes * row_);
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t block = unit / chunks_, chunk = unit % chunks_;
      T* sums = sums_.data() + unit * numbers();
      for (int64_t b = chunk * s_.batch / chunks_; b < (chunk + 1) * s_.batch / chunks_; ++b) {
        const S* x = static_cast<const S*>(p_.x) + b * p_.x_strides.batch + block * s_.in_fields * p_.x_strides.field;
        pad_planes<T, S>(s_, layout_, x, nullptr, p_.x_strides, planes_scratch.data());
        copy_gradient(b, block, dy_scratch.data(), dy_plane);
        if (p_.x_scale)
          scale_planes(planes_scratch.data(), static_cast<const S*>(p_.x_scale), s_.in_fields, layout_.field, order, layout_.plane,
                       planes_scratch.data());
        if (p_.dy_scale)
          scale_planes(dy_scratch.data(), static_cast<const S*>(p_.dy_scale), s_.out_fields, order * dy_plane, order, dy_plane,
                       dy_scratch.data());
        for (int64_t start = 0; start < layout_.flat; start += stretch_)
          add_stretch(planes_scratch.data() + start, dy_scratch.data() + start, dy_plane, forward_scratch.data(),
                      dy_hat_scratch.data(), sums);
      }
    }
  }

  void finish() override {
    constexpr auto scale = inverse_scales<Group>();
    const std::vector<int32_t> position = orbit_positions(s_, orbits_);
    const int64_t pairs = s_.out_fields * s_.in_fields, weight_numbers = s_.in_elements() * s_.taps();
    S* to = static_cast<S*>(p_.grad_weight);
    std::vector<T> block_gradient(weight_numbers);
    for (int64_t block = 0; block < s_.groups; ++block)
      for (int64_t pair = 0; pair < pairs; ++pair, to += weight_numbers) {
        std::fill(block_gradient.begin(), block_gradient.end(), T(0));
        for (int64_t orbit = 0; orbit < orbit_count_; ++orbit) {
          T f[order] = {};
          for (int64_t chunk = 0; chunk < chunks_; ++chunk) {
            const T* sums = sums_.data() + (block * chunks_ + chunk) * numbers();
            for (int g = 0; g < order; ++g) f[g] += sums[(g * pairs + pair) * orbit_count_ + orbit];
          }
          for (int g = 0; g < order; ++g) f[g] *= T(scale[g] / orbits_[orbit].stabiliser);
          transpose_transform<Group>(f);
          for (int g = 0; g < order; ++g) block_gradient[position[orbit * order + g]] += f[g];
        }
        for (int64_t i = 0; i < weight_numbers; ++i) to[i] = narrow<S>(block_gradient[i]);
      }
  }

 private:
  int64_t numbers() const { return s_.out_fields * s_.in_fields * orbit_count_ * order; }

  // Into flat planes whose numbers between the rows stay zero.
  void copy_gradient(int64_t b, int64_t block, T* to, int64_t dy_plane) const {
    const MapStrides& strides = p_.dy_strides;
    const int64_t from = b * strides.batch + block * s_.out_fields * strides.field;
    const S* activated = static_cast<const S*>(p_.dy_activated);
    copy_to_planes(static_cast<const S*>(p_.dy) + from, activated ? activated + from : nullptr, strides, s_.out_fields, order, {0, s_.rows.out, 0, s_.columns.out}, to, order * dy_plane, dy_plane,
                   [&](int64_t i) { return i * layout_.row; });
  }

  void add_stretch(const T* planes, const T* dy, int64_t dy_plane, T* forward, T* dy_hat, T* sums) const {
    for (int64_t o = 0; o < s_.out_fields; ++o)
      transform_rows(dy + o * order * dy_plane, Strided{dy_plane}, dy_hat + o * order * row_);
    for (int64_t c = 0; c < s_.in_fields; ++c, planes += layout_.field) {
      for (int64_t orbit = 0; orbit < orbit_count_; ++orbit)
        transform_rows(planes, orbit_offset_.data() + orbit * order, forward + orbit * order * row_);
      multiply_field(dy_hat, forward, sums + c * orbit_count_);
    }
  }

  template <typename Offset>
  __attribute__((noinline)) void transform_rows(const T* from, const Offset& offset, T* to) const {
    for (int64_t p = 0; p < stretch_; p += lanes) {
      Vec f[order];
      load_elements<Group>(f, from + p, offset);
      transform<Group>(f);
      store_elements<Group>(f, to + p, row_);
    }
  }

  // One input field against all output fields: sums[plane ψ̂[i'][j]][output field][step].
  void multiply_field(const T* dy_hat, const T* forward, T* sums) const {
    const int64_t fields = s_.out_fields, blocks = (fields + kWgradFields - 1) / kWgradFields;
    const int64_t steps_of_all_fields = s_.in_fields * orbit_count_;
    for (const Irrep& irrep : Group::table.irreps)
      for (int i = 0; i < irrep.columns(); ++i)
        for (int64_t block = 0; block < blocks; ++block) {
          const int64_t first = block * fields / blocks, count = (block + 1) * fields / blocks - first;
          for (int j = 0; j < irrep.dim; ++j)
            for (int64_t orbit = 0; orbit < orbit_count_; orbit += kWgradSteps) {
              const int64_t steps = std::min<int64_t>(kWgradSteps, orbit_count_ - orbit);
              WgradArguments<T> a;
              for (int r = 0; r < irrep.dim; ++r) {
                a.dy[r] = dy_hat + (first * order + irrep.plane[r][i]) * row_;
                a.x[r] = forward + (orbit * order + irrep.plane[r][j]) * row_;
              }
              a.dy_field = a.x_step = order * row_;
              a.pixels = stretch_;
              a.to = sums + (irrep.plane[i][j] * fields + first) * steps_of_all_fields + orbit;
              a.to_field = steps_of_all_fields;
              const WgradMultiply<T> kernel = irrep.dim == 1                    ? wgrad_for<T, 1, false>(count, steps)
                                              : irrep.complex_type && j == 1 ? wgrad_for<T, 2, true>(count, steps)
                                                                             : wgrad_for<T, 2, false>(count, steps);
              kernel(a);
            }
        }
  }

  const IrrepWgradParams p_;
  const ConvShape& s_;
  PlaneLayout layout_;
  std::vector<Orbit> orbits_;
  std::vector<int64_t> orbit_offset_;
  int64_t orbit_count_, chunks_;
  int64_t stretch_, row_;  // pixels in a stretch; numbers between the rows of its buffers
  std::vector<T> sums_;    // [block of fields][chunk][plane][output field][input field][orbit]
};
