// irrep wgrad. Included after irrep_planes_kernel.h, in the same namespace.
//
//   dΨ̂[i'][j] = Σ_pixels Σ_row dŷ[row][i'] · X̂[row][j]
//
// Lanes run over pixels again: every accumulator holds the partial sums of one (output field, step) pair, and its lanes are
// added up once a stretch of pixels, in a fixed order.

constexpr int kWgradFields = 3;
constexpr int kWgradSteps = kVectorRegisters >= 32 ? 9 : 4;

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

template <typename S, typename Group>
class IrrepWgrad final : public IrrepWgradPlan {
  using T = accumulate_t<S>;
  using Vec = typename Vector<T>::Aligned;
  static constexpr int lanes = Vector<T>::lanes, order = Group::table.order;
  static constexpr int64_t kMaxStretch = 26;  // vectors: the rows of kWgradSteps steps stay in the first-level cache
  static constexpr int64_t kMaxChunks = 8;    // parts of the batch that are summed apart, each in memory of its own

 public:
  explicit IrrepWgrad(const IrrepWgradParams& params)
      : p_(params), s_(p_.shape), layout_(s_, kMaxStretch * lanes, lanes), orbits_(orbits(s_)),
        orbit_offset_(orbit_offsets(s_, orbits_, layout_)), orbit_count_(static_cast<int64_t>(orbits_.size())),
        steps_(s_.in_fields * orbit_count_), chunks_(std::max<int64_t>(1, std::min(s_.batch, kMaxChunks))) {
    const int64_t vectors = (layout_.flat + lanes - 1) / lanes, stretches = (vectors + kMaxStretch - 1) / kMaxStretch;
    stretch_ = (vectors + stretches - 1) / stretches * lanes;
    row_ = stretch_ + lanes;  // rows at a power of two would share cache sets
    dy_plane_ = stretches * stretch_ + lanes;
    for (int64_t block = 0; block < blocks_of_steps(); ++block)
      for (int64_t step = first_step(block), end = first_step(block + 1); step < end; ++step)
        sums_of_step_.push_back(
            {first_step(block) * s_.out_fields + step - first_step(block), end - first_step(block)});
    sums_.resize(s_.groups * chunks_ * numbers());
  }

  int64_t units() const override { return s_.groups * chunks_; }

  void run(int64_t begin, int64_t end) override {
    Scratch<T> planes_scratch(s_.in_fields * layout_.field), dy_scratch(s_.out_fields * order * dy_plane_);
    Scratch<T> forward_scratch(kWgradSteps * order * row_);
    T *planes = planes_scratch.data(), *dy = dy_scratch.data();
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t block = unit / chunks_, chunk = unit % chunks_;
      T* sums = sums_.data() + unit * numbers();
      LinePrefetch prefetch[2];  // of x and of dy
      for (int64_t b = chunk * s_.batch / chunks_; b < (chunk + 1) * s_.batch / chunks_; ++b) {
        const S* x = static_cast<const S*>(p_.x) + b * p_.x_strides.batch + block * s_.in_fields * p_.x_strides.field;
        pad_planes<T, S>(s_, layout_, x, nullptr, p_.x_strides, planes);
        copy_gradient(b, block, dy);
        if (p_.x_scale)
          scale_planes(planes, static_cast<const S*>(p_.x_scale), s_.in_fields, layout_.field, order, layout_.plane,
                       planes);
        if (p_.dy_scale)
          scale_planes(dy, static_cast<const S*>(p_.dy_scale), s_.out_fields, order * dy_plane_, order, dy_plane_, dy);
        for (int64_t o = 0; o < s_.out_fields; ++o) {
          T* field = dy + o * order * dy_plane_;
          transform_rows(field, Strided{dy_plane_}, layout_.flat, field, dy_plane_);
        }
        if (b + 1 < (chunk + 1) * s_.batch / chunks_) aim_at_image(b + 1, prefetch);
        for (int64_t start = 0; start < layout_.flat; start += stretch_)
          add_stretch(planes + start, dy + start, forward_scratch.data(), sums, prefetch);
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
          const SumsOfStep& step = sums_of_step_[pair % s_.in_fields * orbit_count_ + orbit];
          const int64_t at = step.first + pair / s_.in_fields * step.field;
          T f[order] = {};
          for (int64_t chunk = 0; chunk < chunks_; ++chunk) {
            const T* sums = sums_.data() + (block * chunks_ + chunk) * numbers();
            for (int g = 0; g < order; ++g) f[g] += sums[g * pairs * orbit_count_ + at];
          }
          for (int g = 0; g < order; ++g) f[g] *= T(scale[g] / orbits_[orbit].stabiliser);
          transpose_transform<Group>(f);
          for (int g = 0; g < order; ++g) block_gradient[position[orbit * order + g]] += f[g];
        }
        for (int64_t i = 0; i < weight_numbers; ++i) to[i] = narrow<S>(block_gradient[i]);
      }
  }

 private:
  int64_t numbers() const { return s_.out_fields * steps_ * order + lanes; }
  int64_t blocks_of_steps() const { return (steps_ + kWgradSteps - 1) / kWgradSteps; }
  int64_t first_step(int64_t block) const { return block * steps_ / blocks_of_steps(); }

  int64_t blocks_of_fields() const { return (s_.out_fields + kWgradFields - 1) / kWgradFields; }

  // The next image is fetched while this one is computed.
  void aim_at_image(int64_t b, LinePrefetch (&prefetch)[2]) const {
    if (s_.groups > 1) return;
    int64_t calls = 0;  // of the micro-kernels in one image
    for (const Irrep& irrep : Group::table.irreps) calls += irrep.dim * irrep.columns() * blocks_of_fields();
    calls *= (layout_.flat + stretch_ - 1) / stretch_ * blocks_of_steps();
    const Axis &r = s_.rows, &c = s_.columns;
    prefetch[0].aim(static_cast<const S*>(p_.x) + b * p_.x_strides.batch, s_.in_fields * s_.in_elements() * r.in * c.in,
                    calls);
    prefetch[1].aim(static_cast<const S*>(p_.dy) + b * p_.dy_strides.batch, s_.out_fields * order * r.out * c.out,
                    calls);
  }

  // Into flat planes whose numbers between the rows stay zero.
  void copy_gradient(int64_t b, int64_t block, T* to) const {
    const MapStrides& strides = p_.dy_strides;
    const int64_t from = b * strides.batch + block * s_.out_fields * strides.field;
    const S* activated = static_cast<const S*>(p_.dy_activated);
    copy_to_planes(static_cast<const S*>(p_.dy) + from, activated ? activated + from : nullptr, strides, s_.out_fields,
                   order, {0, s_.rows.out, 0, s_.columns.out}, to, order * dy_plane_, dy_plane_,
                   [&](int64_t i) { return i * layout_.row; });
  }

  void add_stretch(const T* planes, const T* dy_hat, T* forward, T* sums, LinePrefetch (&prefetch)[2]) const {
    for (int64_t block = 0; block < blocks_of_steps(); ++block) {
      const int64_t first = first_step(block), count = first_step(block + 1) - first;
      for (int64_t i = 0; i < count; ++i) {
        const int64_t field = (first + i) / orbit_count_, orbit = (first + i) % orbit_count_;
        transform_rows(planes + field * layout_.field, orbit_offset_.data() + orbit * order, stretch_,
                       forward + i * order * row_, row_);
      }
      multiply_steps(dy_hat, forward, count, sums + first * s_.out_fields, prefetch);
    }
  }

  template <typename Offset>
  __attribute__((noinline)) static void transform_rows(const T* from, const Offset& offset, int64_t pixels, T* to,
                                                       int64_t to_row) {
    for (int64_t p = 0; p < pixels; p += lanes) {
      Vec f[order];
      load_elements<Group>(f, from + p, offset);
      transform<Group>(f);
      store_elements<Group>(f, to + p, to_row);
    }
  }

  // Some steps against all output fields: sums[plane ψ̂[i'][j]][block of steps][output field][step]. The rows of x are read
  // once for each block of fields, from the first-level cache; those of dy once for all steps.
  void multiply_steps(const T* dy_hat, const T* forward, int64_t steps, T* sums, LinePrefetch (&prefetch)[2]) const {
    const int64_t fields = s_.out_fields, blocks = blocks_of_fields();
    for (const Irrep& irrep : Group::table.irreps)
      for (int j = 0; j < irrep.dim; ++j)
        for (int i = 0; i < irrep.columns(); ++i)
          for (int64_t block = 0; block < blocks; ++block) {
            for (LinePrefetch& next : prefetch) next();
            const int64_t first = block * fields / blocks, count = (block + 1) * fields / blocks - first;
            WgradArguments<T> a;
            for (int r = 0; r < irrep.dim; ++r) {
              a.dy[r] = dy_hat + (first * order + irrep.plane[r][i]) * dy_plane_;
              a.x[r] = forward + irrep.plane[r][j] * row_;
            }
            a.dy_field = order * dy_plane_;
            a.x_step = order * row_;
            a.pixels = stretch_;
            a.to = sums + irrep.plane[i][j] * fields * steps_ + first * steps;
            const WgradMultiply<T> kernel = irrep.dim == 1                 ? wgrad_for<T, 1, false>(count, steps)
                                            : irrep.complex_type && j == 1 ? wgrad_for<T, 2, true>(count, steps)
                                                                           : wgrad_for<T, 2, false>(count, steps);
            kernel(a);
          }
  }

  // Where the sums of a step lie in a plane: those of output field 0, and the distance to the next field.
  struct SumsOfStep {
    int64_t first, field;
  };

  const IrrepWgradParams p_;
  const ConvShape& s_;
  PlaneLayout layout_;
  std::vector<Orbit> orbits_;
  std::vector<int64_t> orbit_offset_;
  int64_t orbit_count_, steps_, chunks_;  // steps: (input field, orbit) pairs
  int64_t stretch_, row_, dy_plane_;  // pixels in a stretch; numbers between the rows of X̂ and between the planes of dŷ
  std::vector<SumsOfStep> sums_of_step_;
  std::vector<T> sums_;  // [block of fields][chunk][plane][block of steps][output field][step]
};
