// irrep fprop. Included after irrep_planes_kernel.h and irrep_multiply_kernel.h, in the same namespace.
//
// A tile of pixels goes through a block of (field, orbit) steps in several micro-kernels, each for some output fields. With
// few of these there is one: butterflies in registers, used at once. Otherwise the first leaves their results in a buffer
// for the others. All do the same operations in the same order for every pixel, so that they agree to the bit. Results go to
// memory from registers, or, where they would be scattered there, by way of the sums of several tiles.

// S is the type in memory, T the type of the arithmetic.
template <typename S, typename Group>
class IrrepFprop final : public IrrepFpropPlan {
  using T = accumulate_t<S>;
  using Vec = typename Vector<T>::Aligned;
  static constexpr int lanes = Vector<T>::lanes, order = Group::table.order;
  static constexpr int vectors = tile_vectors<Group>(), tile_pixels = vectors * lanes;

 public:
  explicit IrrepFprop(const IrrepFpropParams& params)
      : p_(params), s_(p_.shape), orbits_(orbits(s_)), in_banks_(p_.relax_input ? p_.banks : 1),
        columns_(s_.out_fields * (p_.relax_input ? 1 : p_.banks)),
        steps_(in_banks_ * s_.in_fields * static_cast<int64_t>(orbits_.size())), arrangement_(arrange()),
        layout_(s_, tile_pixels, lanes, arrangement_), pixels_(s_, {s_, tile_pixels, lanes}, arrangement_),
        orbit_offset_(orbit_offsets(s_, orbits_, layout_)) {
    const int64_t step_bytes = order * vectors * kVectorBytes, weight_bytes = order * columns_ * sizeof(T);
    const int64_t most = std::max<int64_t>(1, kBufferBytes / step_bytes), blocks = (steps_ + most - 1) / most;
    block_steps_ = blocks ? (steps_ + blocks - 1) / blocks : 0;  // equal blocks: a short one hardly repays its calls
    for (int64_t first = 0, count = static_cast<int64_t>(orbits_.size()); first < steps_; first += block_steps_)
      step_blocks_.push_back(
          {first, std::min(block_steps_, steps_ - first), first / count * layout_.field, first % count * order});
    stores_ = may_store_results() && stores_in_two_runs(pixels_, lanes, layout_.all_images(), p_.y_strides);
    // Where the weights are too many for the second-level cache, they are read once for several tiles, whose sums are kept.
    // Sums are also kept where they are not finished in registers, so that each plane is written in long runs.
    const bool weights_stay = steps_ * weight_bytes <= kFarCache / 4;
    tile_sums_ = columns_ * order * tile_pixels;
    macro_tile_ = std::max<int64_t>(1, (weights_stay ? kNearSums : kFarCache / 8) / (columns_ * step_bytes));
    together_ = weights_stay ? 1 : macro_tile_;
    if (stores_) macro_tile_ = together_;
    if (!p_.transformed_weight) transformed_.reset(new T[transformed_numbers()]);
    T* next = const_cast<T*>(static_cast<const T*>(transformed_weight()));  // written only where it is ours
    for (int64_t block = 0; block < s_.groups; ++block) add_block(next);
    block_calls_ = static_cast<int64_t>(calls_.size()) / s_.groups;
    // The next tile's lines are fetched in every block of steps, or in the last.
    store_calls_ =
        together_ == 1 ? prefetch_calls() : std::max<int64_t>(1, prefetch_calls() / std::max<int64_t>(1, blocks));
  }

  int64_t transform_units() const override {
    return p_.transformed_weight ? 0 : s_.groups * p_.banks * lane_blocks() * kWeightSlices;
  }

  // Transforms ψ, scaled here for the inverse transform of the results. Lanes are output fields, neighbours in what the
  // micro-kernels read. A unit has those of some lanes and of a slice of the input fields.
  void transform_weight(int64_t begin, int64_t end) override {
    constexpr auto scale = inverse_scales<Group>();
    const int64_t count = static_cast<int64_t>(orbits_.size()), numbers = s_.in_elements() * s_.taps();
    const int64_t block_numbers = s_.out_fields * s_.in_fields * numbers;
    const int64_t out_stride = (p_.adjoint ? 1 : s_.in_fields) * numbers;
    const int64_t in_stride = (p_.adjoint ? s_.out_fields : 1) * numbers;
    std::vector<int32_t> position = orbit_positions(s_, orbits_);
    if (p_.adjoint) {
      const std::vector<int32_t> of_adjoint = adjoint_positions(s_);
      for (int32_t& at : position) at = of_adjoint[at];
    }
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t slice = unit % kWeightSlices, first = unit / kWeightSlices % lane_blocks() * lanes;
      const int64_t bank = unit / kWeightSlices / lane_blocks() % p_.banks;
      const int64_t block = unit / kWeightSlices / lane_blocks() / p_.banks;
      const int64_t fields = std::min<int64_t>(lanes, s_.out_fields - first);
      const Target* targets = &targets_[block * order * columns_ + (p_.relax_input ? 0 : bank * s_.out_fields) + first];
      for (int64_t c = slice * s_.in_fields / kWeightSlices; c < (slice + 1) * s_.in_fields / kWeightSlices; ++c) {
        const S* taps = static_cast<const S*>(p_.weight) + (bank * s_.groups + block) * block_numbers +
                        first * out_stride + c * in_stride;
        for (int64_t orbit = 0; orbit < count; ++orbit) {
          const int64_t step = ((p_.relax_input ? bank * s_.in_fields : 0) + c) * count + orbit;
          alignas(kVectorBytes) T number[order][lanes] = {};
          for (int g = 0; g < order; ++g) {
            const S* from = taps + position[orbit * order + g];
            for (int64_t lane = 0; lane < fields; ++lane) number[g][lane] = widen(from[lane * out_stride]);
          }
          Vec f[order];
          load_elements<Group>(f, number[0], Strided{lanes});
          transform<Group>(f);
          for (int g = 0; g < order; ++g) f[g] *= T(scale[g] / orbits_[orbit].stabiliser);
          store_elements<Group>(f, number[0], lanes);
          for (int g = 0; g < order; ++g)
            for (int64_t lane = 0; lane < fields; ++lane) {
              const Target& target = targets[g * columns_ + lane];
              target.to[step * target.stride] = number[g][lane];
            }
        }
      }
    }
  }

  const void* transformed_weight() const override {
    return p_.transformed_weight ? p_.transformed_weight : transformed_.get();
  }
  int64_t transformed_numbers() const override { return s_.groups * columns_ * steps_ * order; }

  int64_t stacks() const override { return (s_.batch + layout_.all_images() - 1) / layout_.all_images() * s_.groups; }

  void run(int64_t begin, int64_t end, int64_t parts) const override {
    // Those of x, then, relaxed on the input, w_l · x for each bank.
    const int64_t planes_of_x = s_.in_fields * layout_.field;
    Scratch<T> planes_scratch((p_.relax_input ? in_banks_ + 1 : 1) * planes_of_x);
    Scratch<T> buffer_scratch(block_steps_ * order * tile_pixels), sums_scratch(macro_tile_ * tile_sums_);
    Scratch<T> rows_scratch(order * stage_row());
    T *planes = planes_scratch.data(), *sums = sums_scratch.data();
    const T* read = planes + (p_.relax_input ? planes_of_x : 0);
    const S* x = static_cast<const S*>(p_.x);
    std::vector<Segment> segments;
    TilePlaces<vectors> places(pixels_, lanes, s_.rows.out, p_.y_strides);
    int64_t padded = -1;
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t stack = unit / parts, part = unit % parts, block = stack % s_.groups;
      const int64_t b = stack / s_.groups * layout_.all_images(), images = std::min(layout_.all_images(), s_.batch - b);
      const int64_t numbers = pixels_.numbers(images), tiles = tiles_of(numbers);
      if (stack != padded) {
        const S* activated = static_cast<const S*>(p_.x_activated);
        layout_.for_each_image(images, [&](int64_t first, int64_t count, int64_t at) {
          const int64_t from = (b + first) * p_.x_strides.batch + block * s_.in_fields * p_.x_strides.field;
          pad_planes(s_, layout_, x + from, activated ? activated + from : nullptr, p_.x_strides, count, planes + at);
        });
        for (int64_t bank = 0; p_.relax_input && bank < p_.banks; ++bank)
          scale_planes(planes, static_cast<const S*>(p_.relaxed_weight) + bank * order, s_.in_fields, layout_.field,
                       order, layout_.plane, planes + (1 + bank) * planes_of_x);
      }
      padded = stack;
      Results<T> results{};
      if constexpr (std::is_same_v<T, S>)
        results = {static_cast<T*>(p_.y) + b * p_.y_strides.batch + block * s_.out_fields * p_.y_strides.field,
                   p_.bias ? static_cast<const T*>(p_.bias) + block * s_.out_fields : nullptr, p_.y_strides.field,
                   p_.y_strides.element, p_.relu};
      Prefetch prefetch;
      aim_at_image(prefetch, b + images, tiles);
      if (stores_) prefetch.y.aim(results.y, 1, s_.out_fields * order, p_.y_strides.element * sizeof(S), store_calls_);
      const int64_t last = (part + 1) * tiles / parts;
      places.cover(part * tiles / parts, last, layout_.all_images());
      for (int64_t tile = places.first(); tile < last; tile += macro_tile_) {
        const int64_t count = std::min(macro_tile_, last - tile);
        if (!stores_) aim_at_results(prefetch, b, block, tile, count);
        for (int64_t m = 0; m < count; m += together_)
          multiply_tiles(block, read, tile + m, std::min(together_, count - m), numbers, places, buffer_scratch.data(),
                         sums + m * tile_sums_, prefetch, stores_ ? &results : nullptr);
        if (stores_) continue;
        find_segments(tile, count, numbers, segments);
        write(b, block, images, count, segments, sums, rows_scratch.data());
      }
    }
  }

 private:
  // The buffer is less than half of a first-level cache, which weights and planes go through as well.
  static constexpr int64_t kBufferBytes = 18 << 10, kFarCache = 2 << 20;
  // Sums kept at one time beside weights that stay. Processors with few registers have smaller second-level caches.
  static constexpr int64_t kNearSums = kVectorRegisters >= 32 ? kFarCache / 16 : kFarCache / 64;
  static constexpr int64_t kWeightSlices = 8;  // of the input fields, for threads to share

  // Of the output fields.
  int64_t lane_blocks() const { return (s_.out_fields + lanes - 1) / lanes; }

  // One micro-kernel call on every block of steps: some of the irreps, some output fields.
  struct Call {
    MultiplyPlanes<T, Group> from_planes;  // of the first call
    MultiplyBuffer<T, Group> from_buffer;
    const T* w;  // of the first step
    int64_t w_step, field;
  };
  // Steps whose numbers are in the buffer at one time, and where the first one's lie: in the planes, in orbit_offset_.
  struct StepBlock {
    int64_t first, steps, field, offset;
  };
  // Where Ψ̂[plane] of an output field goes: to + step · stride.
  struct Target {
    T* to;
    int64_t stride;
  };

  // Numbers of a macro-tile that are neighbours in the result: where they lie in both, the latter from the stack's first.
  struct Segment {
    int64_t from, to, count;
  };

  static int64_t tiles_of(int64_t numbers) { return (numbers + tile_pixels - 1) / tile_pixels; }

  // The one with the least work. Of a small image the last tile is mostly empty, and tiles that are not packed compute what
  // lies between the rows, too. Images one behind the other fill tiles; side by side their rows are longer, but they are
  // transposed on the way in and out.
  Arrangement arrange() const {
    const PlaneLayout one(s_, tile_pixels, lanes);
    const int64_t image_bytes =
        s_.in_fields * s_.in_elements() * one.image * one.row_stride * one.column_stride * sizeof(T);
    const int64_t most = std::min(p_.most_images, kFarCache / 2 / std::max<int64_t>(1, image_bytes));
    const int64_t all = s_.batch * s_.groups, threads = std::max<int64_t>(1, all / p_.most_images);
    const bool may_store = may_store_results();
    Arrangement best;
    double least = std::numeric_limits<double>::infinity();
    const auto consider = [&](int64_t behind, int64_t beside, double preference) {
      for (bool packed : {false, true}) {
        const Arrangement other{behind, beside, packed};
        const PixelOrder pixels(s_, one, other);
        const int64_t images = behind * beside, stacks = (s_.batch + images - 1) / images * s_.groups;
        const int64_t most_stacks = (stacks + threads - 1) / threads;  // of a thread
        if (pixels.runs(lanes) > PixelOrder::kMostRuns) continue;
        const double tiles = static_cast<double>(threads * most_stacks * tiles_of(pixels.numbers(images)));
        const double each = step_cost(pixels, may_store) * tiles / static_cast<double>(all);
        if (each < preference * least) best = other, least = each / preference;
      }
    };
    consider(1, 1, 1);
    for (int64_t n = 2; n <= most; ++n) consider(n, 1, 0.95);
    if (can_lie_beside<T, S>(s_, p_.x_strides, p_.y_strides))
      for (int64_t n = kFewestBeside; n <= std::min<int64_t>(most, tile_pixels); n *= 2)
        consider(1, n, may_store ? 0.95 : 0.9);
    return best;
  }

  // Of a vector, in multiply-adds, with what it takes to bring results to memory (all measured).
  double step_cost(const PixelOrder& pixels, bool may_store) const {
    const auto multiplies = static_cast<double>(multiplies_of_step<Group>(columns_));
    if (!may_store) return pixels.cost(lanes, order, multiplies_of_step<Group>(columns_)) * multiplies;
    const bool two_runs = pixels.rows(lanes) <= 2;
    const double loads = two_runs ? multiplies + pixels.crossing(tile_pixels) * order
                                  : pixels.cost(lanes, order, multiplies_of_step<Group>(columns_)) * multiplies;
    int64_t planes = 0;
    if (pixels.beside > 1)  // with squares of four or more pixels
      planes = (std::min(s_.columns.out, pixels.beside) < 8 ? 16 : 12) * (s_.in_fields + s_.out_fields) * order;
    else if (!two_runs && !pixels.packed)
      planes = 10 * s_.out_fields * order;
    return loads + static_cast<double>(planes) / static_cast<double>(steps_);
  }

  // Whether micro-kernels can store the result, if each of its vectors lies in one run or two.
  bool may_store_results() const {
    const bool weighs_result = p_.relaxed_weight && !p_.relax_input;
    return finishes<Group>() && std::is_same_v<T, S> && p_.y_strides.column == 1 && !weighs_result && steps_ > 0;
  }

  // Calls of a block of fields, and where its weights go.
  void add_block(T*& next) {
    targets_.resize(targets_.size() + order * columns_);
    add_calls<0>(&targets_[targets_.size() - order * columns_], next);
  }

  // Weights in the order that the micro-kernels read: [part][fields][step][column of an irrep][j][field]; targets are
  // [plane][field].
  template <int Part>
  void add_calls(Target* targets, T*& next) {
    if constexpr (Part < kernel_parts<Group>()) {
      static_assert(calls_have_kernels<Group, Part>());
      const int64_t blocks = call_count<Group, Part>(columns_);
      for (int64_t block = 0, first = 0, columns = 0; block < blocks; ++block, first += columns) {
        columns = call_fields<Group, Part>(columns_ - first, block, blocks);
        const int64_t step = kernel_planes<Group, Part>() * columns;
        MultiplyPlanes<T, Group> from_planes = nullptr;
        if constexpr (Part == 0) {  // what it reads itself, if it has all fields, nobody else needs
          constexpr unsigned own = planes_read<Group>(first_irrep_column<Group, 0>(), last_irrep_column<Group, 0>());
          from_planes =
              blocks > 1 ? multiply_planes_for<T, Group, ~0u>(columns) : multiply_planes_for<T, Group, ~own>(columns);
        }
        calls_.push_back({from_planes, multiply_buffer_for<T, Group, Part>(columns), next, step, first});
        T* to = next;
        for (int c = first_irrep_column<Group, Part>(); c < last_irrep_column<Group, Part>(); ++c) {
          const IrrepColumn column = irrep_columns<Group>()[c];
          for (int j = 0; j < column.irrep.dim; ++j, to += columns)
            for (int64_t o = 0; o < columns; ++o)
              targets[column.irrep.plane[column.i][j] * columns_ + first + o] = {to + o, step};
        }
        next += steps_ * step;
      }
      add_calls<Part + 1>(targets, next);
    }
  }

  // Of the prefetch in one tile: at the end of every input field, and before the calls that read the buffer.
  int64_t prefetch_calls() const {
    const auto blocks = static_cast<int64_t>(step_blocks_.size());
    return std::max<int64_t>(1, in_banks_ * s_.in_fields + blocks * (block_calls_ - 1));
  }

  // Image `next` is fetched while the ones before it are computed,
  void aim_at_image(Prefetch& prefetch, int64_t next, int64_t tiles) const {
    if (s_.groups > 1 || p_.x_strides.column != 1 || next >= s_.batch) return;
    const int64_t bytes = s_.in_fields * s_.in_elements() * s_.rows.in * s_.columns.in * sizeof(S);
    prefetch.x.aim(static_cast<const S*>(p_.x) + next * p_.x_strides.batch, 1, bytes / LineGroups::line + 1,
                   LineGroups::line, tiles * prefetch_calls());
  }

  // what the steps from `first` on read of the planes for these tiles, or, after the last step, what the first ones read for
  // as many tiles after these,
  void aim_at_planes(Prefetch& prefetch, const T* planes, int64_t first, int64_t tile, int64_t tiles,
                     const TilePlaces<vectors>& places) const {
    if (s_.rows.stride > 1 || s_.columns.stride > 1) return;  // there, what a tile reads of a plane is no single run
    if (first == steps_) first = 0, tile += tiles;
    if (tile >= places.last()) return;
    const int64_t end = std::min(tile + tiles, places.last()), last = std::min(first + block_steps_, steps_);
    const auto count = static_cast<int64_t>(orbits_.size());
    const int64_t field = first / count, fields = (last + count - 1) / count - field;
    const int64_t reach = layout_.offset(s_.rows.dilation * (s_.size - 1), s_.columns.dilation * (s_.size - 1));
    const int64_t from = places[tile].vector[0].from, to = places[end - 1].vector[vectors - 1].from + lanes + reach;
    prefetch.planes.aim(planes + field * layout_.field + from, (to - from) * sizeof(T) / LineGroups::line + 1,
                        fields * s_.in_elements(), layout_.plane * sizeof(T), tiles * (fields + block_calls_ - 1));
  }

  // and where `count` tiles will be written.
  void aim_at_results(Prefetch& prefetch, int64_t b, int64_t block, int64_t tile, int64_t count) const {
    const MapStrides& ys = p_.y_strides;
    if (ys.column != 1 || layout_.beside > 1) return;
    const int64_t start = tile * tile_pixels, image = start / pixels_.image, column = start % pixels_.row;
    const int64_t row = std::min(start % pixels_.image / pixels_.row, s_.rows.out - 1);
    const S* y = static_cast<const S*>(p_.y) + (b + image) * ys.batch + block * s_.out_fields * ys.field;
    prefetch.y.aim(y + row * ys.row + std::min(column, s_.columns.out),
                   count * tile_pixels * sizeof(S) / LineGroups::line + 1, s_.out_fields * order,
                   ys.element * sizeof(S), count * prefetch_calls());
  }

  // Of `numbers` in the stack. The sums are stored to the results or, if there are none, kept.
  void multiply_tiles(int64_t block, const T* planes, int64_t first_tile, int64_t tiles, int64_t numbers,
                      const TilePlaces<vectors>& places, T* buffer, T* sums, Prefetch& prefetch,
                      const Results<T>* results) const {
    const Call *const begin = calls_.data() + block * block_calls_, *const end = begin + block_calls_;
    const PlaneSteps plane_steps{orbit_offset_.data(), orbit_offset_.data() + orbit_offset_.size(), layout_.field,
                                 pixels_.plane_row - pixels_.width};
    if (steps_ == 0) std::fill_n(sums, tiles * tile_sums_, T(0));
    for (const auto& [first, steps, from_field, from_offset] : step_blocks_) {
      // A single tile reads little that its neighbours do not.
      if (tiles > 1) aim_at_planes(prefetch, planes, first + steps, first_tile, tiles, places);
      const T* field = planes + from_field;
      const int64_t* offset = plane_steps.orbit_offset + from_offset;
      const Results<T>* finish = first + steps == steps_ ? results : nullptr;
      for (int64_t tile = 0; tile < tiles; ++tile) {
        const int64_t start = (first_tile + tile) * tile_pixels;
        T* y = sums + tile * tile_sums_;
        const TilePlace<vectors>* place = &places[first_tile + tile];
        TilePlace<vectors> cut;
        if (start + tile_pixels > numbers) place = &(cut = place->first_lanes(numbers - start, lanes));
        if (results && (together_ == 1 ? first == 0 : finish != nullptr))
          aim_at_next(prefetch, *results, first_tile + tile, places);
        const Call* call = begin;
        if (place->load == TileLoad::Contiguous || (kMasks && place->load == TileLoad::Crossing)) {
          call->from_planes(plane_steps, field, offset, buffer, prefetch, call->w + first * call->w_step, steps, y,
                            call->field, first == 0, *place, finish);
          ++call;
        } else {
          int64_t runs = 1;
          for (int v = 0; v < vectors; ++v) runs = std::max(runs, pixels_.runs(start + v * lanes, lanes));
          with_runs(runs, [&](auto n) {
            forward_transform<decltype(n)::value>(field, start, numbers - 1, offset, plane_steps, steps, buffer);
          });
        }
        for (; call != end; ++call) {
          prefetch();
          call->from_buffer(buffer, call->w + first * call->w_step, steps, y, call->field, first == 0, *place, finish);
        }
      }
    }
  }

  // X̂[step][plane][pixel] of the tile that begins with number `start` of those up to `last`.
  template <int Runs>
  __attribute__((noinline)) void forward_transform(const T* field, int64_t start, int64_t last, const int64_t* offset,
                                                   const PlaneSteps& plane_steps, int64_t steps, T* to) const {
    PixelRuns<T, Runs> pixels[vectors];
    for (int v = 0; v < vectors; ++v) pixels[v] = {pixels_, start + v * lanes, last};
    for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) {
        Vec f[order];
        load_elements<Group>(f, field, offset, pixels[v]);
        transform<Group>(f);
        store_elements<Group>(f, to + v * lanes, tile_pixels);
      }
      to += order * tile_pixels;
      offset += order;
      if (offset == plane_steps.orbit_end) offset = plane_steps.orbit_offset, field += layout_.field;
    }
  }

  // Row of the staged planes of one output field, in numbers; at a power of two they would share cache sets.
  int64_t stage_row() const { return macro_tile_ * tile_pixels + lanes; }

  // y[o, g] of vectors vectors of pixels from its sums: inverse transform, sum over the banks, bias and ReLU.
  __attribute__((always_inline)) void finish(const T* sums, int64_t o, const S* bias, T* to, int64_t row) const {
    for (int v = 0; v < vectors; ++v) {
      Vec f[order];
      load_elements<Group>(f, sums + o * order * tile_pixels + v * lanes, Strided{tile_pixels});
      transpose_transform<Group>(f);
      if (p_.relaxed_weight && !p_.relax_input) {
        const S* w = static_cast<const S*>(p_.relaxed_weight);
        for_each_element(f, [&](Vec& each, int g) { each *= T(widen(w[g])); });
        for (int64_t bank = 1; bank < p_.banks; ++bank) {
          Vec next[order];
          load_elements<Group>(next, sums + (bank * s_.out_fields + o) * order * tile_pixels + v * lanes,
                               Strided{tile_pixels});
          transpose_transform<Group>(next);
          for_each_element(f, [&](Vec& each, int g) { each += next[g] * T(widen(w[bank * order + g])); });
        }
      }
      add_bias_and_relu<T>(f, bias ? bias + o : nullptr, p_.relu);
      store_elements<Group>(f, to + v * lanes, row);
    }
  }

  // Where the tile after this one will be stored, while this one is computed.
  void aim_at_next(Prefetch& prefetch, const Results<T>& results, int64_t tile,
                   const TilePlaces<vectors>& places) const {
    const bool last = tile + 1 == places.last();
    const TilePlace<vectors>& next = places[last ? places.first() : tile + 1];
    prefetch.y.aim(results.y + next.last_stored() + (last ? layout_.all_images() * p_.y_strides.batch : 0));
  }

  // Of so many tiles of a stack's planes; the pixels between rows and between images belong to nobody.
  void find_segments(int64_t tile, int64_t count, int64_t numbers, std::vector<Segment>& segments) const {
    segments.clear();
    const MapStrides& ys = p_.y_strides;
    const int64_t start = tile * tile_pixels, end = std::min(start + count * tile_pixels, numbers);
    int64_t image = start / pixels_.image, row = start % pixels_.image / pixels_.row;
    for (;; ++row) {
      if (row >= s_.rows.out) row = 0, ++image;
      const int64_t first = image * pixels_.image + row * pixels_.row;
      if (first >= end) return;
      const int64_t from = std::max(start, first), to = std::min(end, first + pixels_.width);
      if (from >= to) continue;
      const Segment next{from - start, image * ys.batch + row * ys.row + (from - first) / layout_.beside * ys.column,
                         (to - from) / layout_.beside};
      Segment* before = segments.empty() ? nullptr : &segments.back();
      if (before && before->from + before->count * layout_.beside == next.from &&
          before->to + before->count * ys.column == next.to)
        before->count += next.count;
      else
        segments.push_back(next);
    }
  }

  // Writes `tiles` tiles of pixels.
  __attribute__((noinline)) void write(int64_t b, int64_t block, int64_t images, int64_t tiles,
                                       const std::vector<Segment>& segments, T* sums, T* rows) const {
    const MapStrides& ys = p_.y_strides;
    S* y = static_cast<S*>(p_.y) + b * ys.batch + block * s_.out_fields * ys.field;
    const S* bias = p_.bias ? static_cast<const S*>(p_.bias) + block * s_.out_fields : nullptr;
    if constexpr (std::is_same_v<T, S>) {
      const PixelFormat format = pixel_format(ys, s_.out_fields, order);
      if (ys.column != 1 && format.lines) {
        const auto write_tiles = [&](auto n) {
          auto segment = segments.begin();
          for (int64_t m = 0; m < tiles; ++m) {
            const int64_t start = m * tile_pixels, end = start + tile_pixels;
            for (int64_t o = 0; o < s_.out_fields; ++o)
              finish(sums, o, bias, sums + o * order * tile_pixels, tile_pixels);
            for (; segment != segments.end() && segment->from < end; ++segment) {
              const int64_t from = std::max(start, segment->from), last = segment->from + segment->count;
              const int64_t to = segment->to + (from - segment->from) * ys.column;
              write_pixels<decltype(n)::value>(sums, format, {from - start, to, std::min(end, last) - from}, y);
              if (last > end) break;  // the rest lies in the next tile
            }
            sums += tile_sums_;
          }
        };
        if (with_square<T>(format.count, write_tiles)) return;
      }
    }
    for (int64_t o = 0; o < s_.out_fields; ++o, y += ys.field) {
      for (int64_t m = 0; m < tiles; ++m) finish(sums + m * tile_sums_, o, bias, rows + m * tile_pixels, stage_row());
      for (int g = 0; g < order; ++g)
        for (const Segment& segment : segments) {
          const T* numbers = rows + g * stage_row() + segment.from;
          S* line = y + g * ys.element + segment.to;
          if (layout_.beside > 1)
            write_beside(numbers, images, segment.count, line);
          else if (ys.column == 1)
            copy_run(line, numbers, segment.count);
          else
            for (int64_t i = 0; i < segment.count; ++i) line[i * ys.column] = narrow<S>(numbers[i]);
        }
    }
  }

  // Pixels of images side by side, [pixel][image], to rows of each.
  __attribute__((noinline)) void write_beside(const T* numbers, int64_t images, int64_t count, S* line) const {
    if constexpr (std::is_same_v<T, S>) {
      const int64_t beside = layout_.beside, distance = p_.y_strides.batch;
      const bool squares = with_square<T>(std::min(images, count), [&](auto n) {
        constexpr int N = decltype(n)::value;
        for_each_block<N>(images, [&](int64_t b) {
          for_each_block<N>(count, [&](int64_t j) {
            Square<T, N>::copy(numbers + j * beside + b, beside, line + b * distance + j, distance);
          });
        });
      });
      if (squares) return;
      for (int64_t b = 0; b < images; ++b)
        for (int64_t j = 0; j < count; ++j) line[b * distance + j] = numbers[j * beside + b];
    }
  }

  // A segment of a tile, [plane][pixel], to pixels of numbers.
  template <int N>
  void write_pixels(const T* tile, const PixelFormat& format, const Segment& segment, T* y) const {
    const int64_t column = p_.y_strides.column, end = segment.from + segment.count;
    for (int64_t first = segment.from / N * N; first < end; first += N) {  // squares lie within the tile
      T* line = y + segment.to + (first - segment.from) * column;
      const int begin = static_cast<int>(std::max<int64_t>(0, segment.from - first));
      const int stop = static_cast<int>(std::min<int64_t>(N, end - first));
      for (int64_t l = 0; l < format.lines; ++l)
        for_each_block<N>(format.count, [&](int64_t k) {
          Square<T, N>::copy(tile + (l * format.line_plane + k * format.plane) * tile_pixels + first,
                             format.plane * tile_pixels, line + l * format.line + k, column, begin, stop);
        });
    }
  }

  const IrrepFpropParams p_;
  const ConvShape& s_;
  std::vector<Orbit> orbits_;
  int64_t in_banks_, columns_;  // banks side by side in the input; output fields, with the banks that lie there
  int64_t steps_;               // (field, orbit) pairs: the inner dimension of every matrix product
  Arrangement arrangement_;
  PlaneLayout layout_;
  PixelOrder pixels_;
  std::vector<int64_t> orbit_offset_;
  int64_t macro_tile_, together_, tile_sums_;  // tiles kept, and computed together; numbers of the sums of one
  int64_t block_steps_;                        // steps in the buffer
  int64_t store_calls_;                        // of the prefetch, for the next tile's results
  std::vector<StepBlock> step_blocks_;
  std::vector<Call> calls_;      // [block of fields][call]
  int64_t block_calls_;          // of a block of fields
  std::vector<Target> targets_;  // [block of fields][plane][field]
  bool stores_;                  // whether micro-kernels store the result
  std::unique_ptr<T[]> transformed_;
};
