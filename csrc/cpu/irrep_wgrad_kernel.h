// irrep wgrad. Included after irrep_wgrad_multiply_kernel.h, in the same namespace.
//
//   dΨ̂[i'][j] = Σ_pixels Σ_row dŷ[row][i'] · X̂[row][j]
//
template <typename S, typename Group>
class IrrepWgrad final : public IrrepWgradPlan {
  using T = accumulate_t<S>;
  using Vec = typename Vector<T>::Aligned;
  static constexpr int lanes = Vector<T>::lanes, order = Group::table.order;
  static constexpr int64_t x_row = WgradLayout<T>::x_row, turned_plane = WgradLayout<T>::dy_plane;
  static constexpr int64_t kNearCache = 20 << 10;  // what X̂ of a block of steps may fill of the first-level cache
  static constexpr int64_t kUnits = 8, kPartFields = 16, kSlices = 8;

 public:
  explicit IrrepWgrad(const IrrepWgradParams& params)
      : p_(params), s_(p_.shape), by_fields_(lanes_are_fields(s_)),
        columns_(by_fields_ ? vectors_of(s_.out_fields) * lanes : s_.out_fields), chunks_(chunks_of(s_)),
        parts_(parts_of(s_, chunks_)), arrangement_(arrange((s_.batch + chunks_ - 1) / chunks_)),
        layout_(s_, kMaxStretch * lanes, lanes, arrangement_),
        pixels_(s_, {s_, kMaxStretch * lanes, lanes}, arrangement_), orbits_(orbits(s_)),
        orbit_offset_(orbit_offsets(s_, orbits_, layout_)), orbit_count_(static_cast<int64_t>(orbits_.size())) {
    const int64_t vectors = vectors_of(pixels_.numbers(layout_.all_images()));
    const int64_t stretches = (vectors + most_stretch() - 1) / most_stretch();
    stretch_ = (by_fields_ ? most_stretch() : (vectors + stretches - 1) / stretches) * lanes;
    dy_plane_ = vectors * lanes + lanes;
    numbers_ = columns_ * most_fields() * orbit_count_ * order + lanes;
    sums_.reset(new T[units() * numbers_]);
    if constexpr (kBroadcasts)
      for (int64_t steps = 1; by_fields_ && steps <= kFieldsSteps; ++steps) add_calls(steps, calls_[steps]);
  }

  int64_t units() const override { return s_.groups * parts_ * chunks_; }
  int64_t finish_units() const override { return s_.groups * parts_ * kSlices; }

  void run(int64_t begin, int64_t end) override {
    Scratch<T> planes_scratch(most_fields() * layout_.field), dy_scratch(columns_ * order * dy_plane_);
    Scratch<T> forward_scratch(block_steps() * order * x_row);
    Scratch<T> turned_scratch(by_fields_ ? vectors_of(columns_) * order * turned_plane : 0);
    T *planes = planes_scratch.data(), *dy = dy_scratch.data();
    int64_t images = 0;  // that lie in the planes
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t block = unit / chunks_ / parts_, chunk = unit % chunks_;
      const Part part = part_of(unit / chunks_ % parts_);
      ConvShape shape = s_;
      shape.in_fields = part.fields;
      T* sums = sums_.get() + unit * numbers_;
      std::fill_n(sums, numbers_, T(0));
      Prefetch prefetch;
      const int64_t last = (chunk + 1) * s_.batch / chunks_;
      for (int64_t b = chunk * s_.batch / chunks_; b < last; b += layout_.all_images()) {
        const int64_t count = std::min(layout_.all_images(), last - b);
        if (count < images) {  // the others left numbers behind
          std::fill_n(planes, most_fields() * layout_.field, T(0));
          std::fill_n(dy, s_.out_fields * order * dy_plane_, T(0));
        }
        images = count;
        layout_.for_each_image(count, [&](int64_t first, int64_t beside, int64_t at) {
          pad_planes<T, S>(shape, layout_, x_of(b + first, block, part), nullptr, p_.x_strides, beside, planes + at);
          copy_gradient(b + first, block, beside, dy + first / layout_.beside * pixels_.image);
        });
        if (p_.x_scale)
          scale_planes(planes, static_cast<const S*>(p_.x_scale), part.fields, layout_.field, order, layout_.plane,
                       planes);
        if (p_.dy_scale)
          scale_planes(dy, static_cast<const S*>(p_.dy_scale), s_.out_fields, order * dy_plane_, order, dy_plane_, dy);
        const int64_t numbers = pixels_.numbers(count);
        for (int64_t at = 0; !by_fields_ && at < s_.out_fields * order * dy_plane_; at += order * dy_plane_)
          transform_gradient(dy + at, numbers);
        if (b + count < last) aim_at_image(b + count, block, part, prefetch);
        with_runs(pixels_.runs(lanes), [&](auto runs) {
          for (int64_t start = 0; start < numbers; start += stretch_)
            add_stretch<decltype(runs)::value>(part, planes, start, numbers, dy + start, forward_scratch.data(),
                                               turned_scratch.data(), sums, prefetch);
        });
      }
    }
  }

  void finish(int64_t begin, int64_t end) override {
    constexpr auto scale = inverse_scales<Group>();
    const std::vector<int32_t> position = orbit_positions(s_, orbits_);
    const int64_t weight_numbers = s_.in_elements() * s_.taps();
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t slice = unit % kSlices, of_part = unit / kSlices;  // of the blocks of steps
      const Part part = part_of(of_part % parts_);
      const T* sums = sums_.get() + of_part * chunks_ * numbers_;
      const int64_t plane = columns_ * steps(part), blocks = blocks_of_steps(part);
      S* gradient = static_cast<S*>(p_.grad_weight) + of_part / parts_ * s_.out_fields * s_.in_fields * weight_numbers;
      for (int64_t block = slice * blocks / kSlices; block < (slice + 1) * blocks / kSlices; ++block) {
        const int64_t first = first_step(part, block), count = first_step(part, block + 1) - first;
        // Lanes are numbers of the block, [output field][step] or [block of fields][step][field].
        for (int64_t at = 0; at < count * columns_; at += lanes) {
          Vec f[order];
          for (int g = 0; g < order; ++g) {
            f[g] = Vec{};
            for (int64_t chunk = 0; chunk < chunks_; ++chunk)
              f[g] += *reinterpret_cast<const typename Vector<T>::Unaligned*>(sums + chunk * numbers_ + g * plane +
                                                                              first * columns_ + at);
            f[g] *= T(scale[g]);
          }
          transpose_transform<Group>(f);
          alignas(kVectorBytes) T orbit_gradient[order][lanes];
          store_elements<Group>(f, orbit_gradient[0], lanes);
          for (int lane = 0; lane < std::min<int64_t>(lanes, count * columns_ - at); ++lane) {
            const int64_t o = by_fields_ ? at / lanes / count * lanes + lane : (at + lane) / count;
            if (o >= s_.out_fields) break;
            const int64_t step = first + (by_fields_ ? at / lanes : at + lane) % count, orbit = step % orbit_count_;
            const int32_t* to = position.data() + orbit * order;
            S* weight = gradient + (o * s_.in_fields + part.first + step / orbit_count_) * weight_numbers;
            const int stabiliser = orbits_[orbit].stabiliser;
            for (int g = 0; g < order; ++g) {
              T sum = orbit_gradient[g][lane];
              // Of the elements that move the tap to one place, each brings its share.
              for (int h = 0; stabiliser > 1 && h < order; ++h)
                if (h != g && to[h] == to[g]) sum += orbit_gradient[h][lane];
              weight[to[g]] = narrow<S>(sum / T(stabiliser));
            }
          }
        }
      }
    }
  }

 private:
  // One micro-kernel call where lanes are output fields, and where its numbers lie.
  struct FieldsCall {
    WgradFields<T> kernel;
    int64_t dy, x, to, to_fields;
  };

  struct Part {
    int64_t first, fields;  // of the input
  };
  Part part_of(int64_t part) const {
    const int64_t first = part * s_.in_fields / parts_;
    return {first, (part + 1) * s_.in_fields / parts_ - first};
  }

  // Each chunk of the batch has sums of its own, as many as there are weights: no more of them than the maps have numbers.
  // Where that leaves less than kUnits to share, the input's fields are cut, and each part reads all of dy. Both are powers
  // of two, so that two threads, or four, have as much to do.
  static int64_t chunks_of(const ConvShape& s) {
    const int64_t maps = (s.in_fields + s.out_fields) * s.batch * s.rows.out * s.columns.out;
    return power_of_two(std::min({kUnits, s.batch, maps / (s.in_fields * s.out_fields * s.taps())}));
  }
  static int64_t parts_of(const ConvShape& s, int64_t chunks) {
    return power_of_two(std::min(kUnits / chunks, s.in_fields / kPartFields));
  }
  // The largest up to `most`, and at least 1.
  static int64_t power_of_two(int64_t most) {
    int64_t power = 1;
    while (2 * power <= most) power *= 2;
    return power;
  }
  int64_t most_fields() const { return (s_.in_fields + parts_ - 1) / parts_; }

  static int64_t vectors_of(int64_t numbers) { return (numbers + lanes - 1) / lanes; }

  // Where they fill vectors well (measured: even at 13 of 16).
  static bool lanes_are_fields(const ConvShape& s) {
    return kBroadcasts && 10 * s.out_fields >= 9 * vectors_of(s.out_fields) * lanes;
  }

  // In vectors. Lanes are added up at the end of each stretch, so it should be long; but with few output fields the time goes
  // into reading X̂ (measured: up to ten, and not for eight planes, of which few vectors fit).
  int64_t most_stretch() const {
    if (by_fields_) return std::min(kMaxStretch, kFieldsPixels / lanes);
    if (s_.out_fields > 10 || order > 4) return kMaxStretch;
    return std::min<int64_t>(kMaxStretch, kNearCache / (kWgradSteps * order * kVectorBytes));
  }

  // The one with the least work, of so many images: what lies between the rows is summed up like other numbers.
  Arrangement arrange(int64_t images) const {
    constexpr int64_t most = kMaxStretch * lanes;
    const PlaneLayout one(s_, most, lanes);
    const int64_t multiplies = multiplies_of_step<Group>(s_.out_fields);
    Arrangement best;
    double least = std::numeric_limits<double>::infinity();  // vectors an image
    const auto consider = [&](int64_t beside, double saving) {
      for (bool packed : {false, true}) {
        const PixelOrder pixels(s_, one, {1, beside, packed});
        if (pixels.runs(lanes) > PixelOrder::kMostRuns || (beside > 1 && pixels.last_image > 2 * most)) continue;
        // As many one behind the other as leave less than `most` numbers, but as many each time.
        const int64_t fitting = std::max<int64_t>(1, (most - pixels.last_image) / pixels.image + 1);
        const int64_t lines = std::max<int64_t>(1, images / beside), times = (lines + fitting - 1) / fitting;
        const int64_t behind = (lines + times - 1) / times, all = behind * beside;
        const double vectors = static_cast<double>(vectors_of(pixels.numbers(all)));
        const double each = pixels.cost(lanes, order, multiplies) * vectors / static_cast<double>(all);
        if (each < saving * least) best = {behind, beside, packed}, least = each;
      }
    };
    consider(1, 1);
    if (can_lie_beside<T, S>(s_, p_.x_strides, p_.dy_strides))
      for (int64_t n = kFewestBeside; n <= std::min<int64_t>(images, lanes); n *= 2) consider(n, 0.95);
    return best;
  }

  // (field, orbit) pairs of a part, and the blocks of them that a micro-kernel takes.
  int64_t steps(const Part& part) const { return part.fields * orbit_count_; }
  int64_t block_steps() const { return by_fields_ ? kFieldsSteps : kWgradSteps; }
  int64_t blocks_of_steps(const Part& part) const { return (steps(part) + block_steps() - 1) / block_steps(); }
  int64_t first_step(const Part& part, int64_t block) const { return block * steps(part) / blocks_of_steps(part); }

  int64_t blocks_of_fields() const { return (s_.out_fields + kWgradFields - 1) / kWgradFields; }

  const S* x_of(int64_t b, int64_t block, const Part& part) const {
    const MapStrides& strides = p_.x_strides;
    return static_cast<const S*>(p_.x) + b * strides.batch + (block * s_.in_fields + part.first) * strides.field;
  }

  // The next image is fetched while this one is computed.
  void aim_at_image(int64_t b, int64_t block, const Part& part, Prefetch& prefetch) const {
    if (s_.groups > 1) return;
    int64_t calls = 0;  // of the micro-kernels in one image
    if (by_fields_)
      calls = static_cast<int64_t>(calls_[kFieldsSteps].size());
    else
      for (const Irrep& irrep : Group::table.irreps) calls += irrep.dim * irrep.columns() * blocks_of_fields();
    calls *= (pixels_.numbers(layout_.all_images()) + stretch_ - 1) / stretch_ * blocks_of_steps(part);
    const Axis &r = s_.rows, &c = s_.columns;
    const auto aim = [&](LineGroups& lines, const S* from, int64_t numbers) {
      lines.aim(from, 1, numbers * sizeof(S) / LineGroups::line + 1, LineGroups::line, calls);
    };
    aim(prefetch.x, x_of(b, block, part), part.fields * s_.in_elements() * r.in * c.in);
    aim(prefetch.y, static_cast<const S*>(p_.dy) + b * p_.dy_strides.batch, s_.out_fields * order * r.out * c.out);
  }

  // Into planes in the order of pixels_, whose numbers between the rows stay zero.
  void copy_gradient(int64_t b, int64_t block, int64_t beside, T* to) const {
    const MapStrides& strides = p_.dy_strides;
    const int64_t from = b * strides.batch + block * s_.out_fields * strides.field;
    const S* dy = static_cast<const S*>(p_.dy) + from;
    const S* activated = p_.dy_activated ? static_cast<const S*>(p_.dy_activated) + from : nullptr;
    const Pixels all{0, s_.rows.out, 0, s_.columns.out};
    const auto row_offset = [&](int64_t i) { return i * pixels_.row; };
    if constexpr (std::is_same_v<T, S>)
      if (layout_.beside > 1)
        return copy_to_planes_beside(dy, activated, strides, s_.out_fields, order, all, beside, layout_.beside, to,
                                     order * dy_plane_, dy_plane_, row_offset);
    copy_to_planes(dy, activated, strides, s_.out_fields, order, all, to, order * dy_plane_, dy_plane_, row_offset,
                   pixels_.row);
  }

  // The stretch that begins with number `start` of so many.
  template <int Runs>
  void add_stretch(const Part& part, const T* planes, int64_t start, int64_t numbers, T* dy_hat, T* forward, T* turned,
                   T* sums, Prefetch& prefetch) const {
    const int64_t stretch = std::min(stretch_, vectors_of(numbers - start) * lanes);
    if (by_fields_) turn_gradient(dy_hat, stretch, turned);
    PixelRuns<T, Runs> pixels[kMaxStretch];
    for (int64_t at = 0; at < stretch; at += lanes) pixels[at / lanes] = {pixels_, start + at, numbers - 1};
    int64_t field = 0, orbit = 0;
    for (int64_t block = 0; block < blocks_of_steps(part); ++block) {
      const int64_t first = first_step(part, block), count = first_step(part, block + 1) - first;
      for (int64_t i = 0; i < count; ++i) {
        transform_stretch<Runs>(planes + field * layout_.field, orbit_offset_.data() + orbit * order, pixels, stretch,
                                forward + i * order * x_row);
        if (++orbit == orbit_count_) orbit = 0, ++field;
      }
      T* to = sums + first * columns_;
      if (by_fields_)
        for (const FieldsCall& call : calls_[count]) {
          prefetch();
          call.kernel(turned + call.dy, forward + call.x, stretch, to + call.to, columns_ * steps(part),
                      call.to_fields);
        }
      else
        multiply_steps(dy_hat, forward, stretch, count, to, columns_ * steps(part), prefetch);
    }
  }

  template <typename Offset, typename Pixels>
  __attribute__((always_inline)) static void transform_vector(const T* from, const Offset& offset, const Pixels& pixels,
                                                              T* to, int64_t to_row) {
    Vec f[order];
    load_elements<Group>(f, from, offset, pixels);
    transform<Group>(f);
    store_elements<Group>(f, to, to_row);
  }

  template <int Runs>
  __attribute__((noinline)) void transform_stretch(const T* from, const int64_t* offset,
                                                   const PixelRuns<T, Runs>* pixels, int64_t stretch, T* to) const {
    for (int64_t at = 0; at < stretch; at += lanes) transform_vector(from, offset, *pixels++, to + at, x_row);
  }

  // dŷ of an output field, in place.
  void transform_gradient(T* dy, int64_t numbers) const {
    for (int64_t at = 0; at < numbers; at += lanes)
      transform_vector(dy + at, Strided{dy_plane_}, Neighbours{}, dy + at, dy_plane_);
  }

  // dŷ of a stretch, [block of fields][plane][pixel][field]; leaves it in dy as well.
  __attribute__((noinline)) void turn_gradient(T* dy, int64_t stretch, T* to) const {
    const int64_t distance = order * dy_plane_;
    for (int64_t first = 0; first < columns_; first += lanes, dy += lanes * distance)
      for (int64_t at = 0; at < stretch; at += lanes) {
        for (int64_t o = 0; o < std::min<int64_t>(lanes, s_.out_fields - first); ++o)
          transform_gradient(dy + o * distance + at, lanes);
        for (int g = 0; g < order; ++g)
          Square<T, lanes>::copy(dy + g * dy_plane_ + at, distance,
                                 to + (first / lanes * order + g) * turned_plane + at * lanes, lanes);
      }
  }

  // The micro-kernels for a block of so many steps where lanes are output fields; sums are [plane ψ̂[i'][j]][block of steps]
  // [block of fields][step][field].
  template <int At = 0>
  void add_calls(int64_t steps, std::vector<FieldsCall>& calls) const {
    if constexpr (At < Group::table.irrep_count) {
      constexpr int vectors = field_vectors<Group, At>();
      for (int64_t field = 0; field < columns_;) {
        const bool all = columns_ - field >= vectors * lanes;
        const int64_t most = fitting_steps<Group, At>(all ? vectors : 1), parts = (steps + most - 1) / most;
        for (int64_t part = 0; part < parts; ++part) {
          const int64_t first = part * steps / parts, count = (part + 1) * steps / parts - first;
          calls.push_back(
              {all ? wgrad_fields_for<T, Group, At, vectors>(count) : wgrad_fields_for<T, Group, At, 1>(count),
               field / lanes * order * turned_plane, first * order * x_row, field * steps + first * lanes,
               steps * lanes});
        }
        field += (all ? vectors : 1) * lanes;
      }
      add_calls<At + 1>(steps, calls);
    }
  }

  // Some steps against all output fields: sums[plane ψ̂[i'][j]][block of steps][output field][step]. The rows of x are read
  // once for each block of fields, from the first-level cache; those of dy once for all steps.
  void multiply_steps(const T* dy_hat, const T* forward, int64_t stretch, int64_t steps, T* sums, int64_t sums_plane,
                      Prefetch& prefetch) const {
    const int64_t fields = s_.out_fields, blocks = blocks_of_fields();
    for (const Irrep& irrep : Group::table.irreps)
      for (int j = 0; j < irrep.dim; ++j)
        for (int i = 0; i < irrep.columns(); ++i)
          for (int64_t block = 0; block < blocks; ++block) {
            prefetch();
            const int64_t first = block * fields / blocks, count = (block + 1) * fields / blocks - first;
            WgradArguments<T> a;
            for (int r = 0; r < irrep.dim; ++r) {
              a.dy[r] = dy_hat + (first * order + irrep.plane[r][i]) * dy_plane_;
              a.x[r] = forward + irrep.plane[r][j] * x_row;
            }
            a.dy_field = order * dy_plane_;
            a.x_step = order * x_row;
            a.pixels = stretch;
            a.to = sums + irrep.plane[i][j] * sums_plane + first * steps;
            const WgradMultiply<T> kernel = irrep.dim == 1                 ? wgrad_for<T, 1, false>(count, steps)
                                            : irrep.complex_type && j == 1 ? wgrad_for<T, 2, true>(count, steps)
                                                                           : wgrad_for<T, 2, false>(count, steps);
            kernel(a);
          }
  }

  const IrrepWgradParams p_;
  const ConvShape& s_;
  bool by_fields_;          // whether lanes are output fields
  int64_t columns_;         // output fields, with those that fill up vectors
  int64_t chunks_, parts_;  // of the batch, of the input's fields
  Arrangement arrangement_;
  PlaneLayout layout_;
  PixelOrder pixels_;
  std::vector<Orbit> orbits_;
  std::vector<int64_t> orbit_offset_;
  int64_t orbit_count_;
  int64_t stretch_, dy_plane_;  // pixels in a stretch; numbers between the planes of dŷ
  int64_t numbers_;             // of the sums of a unit, and room for a vector
  std::array<std::vector<FieldsCall>, kFieldsSteps + 1> calls_;  // for a block of so many steps
  std::unique_ptr<T[]> sums_;  // [block of fields][part][chunk][plane][block of steps][output field][step]
};
