// Where the tiles of irrep fprop lie, in planes and in the result. Included after irrep_planes_kernel.h, in the same
// namespace.

// Where the numbers of one vector lie: lane l in a plane at from + l, or, of the lanes `behind` the end of a row, a gap
// further on; in a plane of the result at to[run] + l, for the lanes stored[run] of two runs.
struct VectorPlace {
  int64_t from = 0, to[2] = {0, 0};
  uint16_t behind = 0, stored[2] = {0, 0};
};
enum class TileLoad { Contiguous, Crossing, Scattered };  // as one run, as above, in more runs
template <int Vectors>
struct TilePlace {
  VectorPlace vector[Vectors];
  TileLoad load = TileLoad::Contiguous;

  // Where it stores last.
  int64_t last_stored() const {
    int64_t last = 0;
    for (const VectorPlace& place : vector)
      for (int run = 0; run < 2; ++run)
        if (place.stored[run]) last = std::max<int64_t>(last, place.to[run] + 31 - __builtin_clz(place.stored[run]));
    return last;
  }
  // Without the lanes from number `count` of the tile on.
  TilePlace first_lanes(int64_t count, int lanes) const {
    TilePlace cut = *this;
    for (int v = 0; v < Vectors; ++v)
      for (uint16_t& stored : cut.vector[v].stored)
        stored &= (uint32_t{1} << std::clamp<int64_t>(count - v * lanes, 0, lanes)) - 1;
    return cut;
  }
};

// Whether every vector of a result of so many rows and images lies as described.
inline bool stores_in_two_runs(const PixelOrder& order, int64_t lanes, int64_t images, const MapStrides& y) {
  if (order.beside > 1 || y.column != 1) return false;
  if (order.packed && y.row == order.width) return images == 1 || order.image >= lanes;
  return order.rows(lanes) <= 2;
}

// The places of the tiles from `first` to `last`, of images of so many rows.
template <int Vectors>
class TilePlaces {
 public:
  TilePlaces(const PixelOrder& order, int64_t lanes, int64_t rows, const MapStrides& y)
      : order_(order), lanes_(lanes), rows_(rows), y_(y) {}

  const TilePlace<Vectors>& operator[](int64_t tile) const { return places_[tile - first_]; }
  int64_t first() const { return first_; }
  int64_t last() const { return last_; }

  void cover(int64_t first, int64_t last, int64_t images) {
    if (first == first_ && last == last_) return;
    first_ = first, last_ = last;
    places_.assign(last - first, {});
    const int64_t tile = Vectors * lanes_, begin = first * tile, end = last * tile;
    for (int64_t v = begin / lanes_; !order_.packed && v < end / lanes_; ++v)
      places_[v / Vectors - first].vector[v % Vectors].from = v * lanes_;
    int64_t row = std::min(begin % order_.image / order_.row, rows_);
    for (int64_t i = begin / order_.image; i < images / order_.beside; ++i, row = 0)
      for (; row < rows_; ++row) {
        const int64_t number = i * order_.image + row * order_.row;
        if (number >= end) return settle();
        add_row(number, begin, end, i * order_.plane_image + row * order_.plane_row, i * y_.batch + row * y_.row);
      }
    settle();
  }

 private:
  // One that begins with a number, there in a plane, and there in one of the result; what lies before `begin` or behind
  // `end` is not asked for.
  void add_row(int64_t number, int64_t begin, int64_t end, int64_t from, int64_t to) {
    int64_t j = std::max<int64_t>(0, begin - number);
    for (const int64_t width = std::min(order_.width, end - number); j < width;) {
      const int64_t lane = (number + j) % lanes_, count = std::min(lanes_ - lane, width - j);
      add_run((number + j) / lanes_, ((uint32_t{1} << count) - 1) << lane, from + j - lane, to + j - lane);
      j += count;
    }
  }

  void add_run(int64_t vector, uint32_t lanes, int64_t from, int64_t to) {
    TilePlace<Vectors>& at = places_[vector / Vectors - first_];
    VectorPlace& place = at.vector[vector % Vectors];
    const int64_t gap = order_.plane_row - order_.width;
    if (!place.stored[0]) place.from = from;
    if (gap && from == place.from + gap)
      place.behind |= lanes;
    else if (from != place.from)
      at.load = TileLoad::Scattered;
    const int run = place.stored[0] && to != place.to[0];
    place.to[run] = to;
    place.stored[run] |= lanes;
  }

  void settle() {
    for (TilePlace<Vectors>& at : places_)
      for (int v = 0; v < Vectors; ++v) {
        VectorPlace& place = at.vector[v];
        const int64_t next = at.vector[0].from + v * lanes_;
        if (order_.packed && !place.stored[0]) place.from = next;  // beyond the last number
        if (at.load == TileLoad::Contiguous && (place.behind || place.from != next)) at.load = TileLoad::Crossing;
      }
  }

  const PixelOrder& order_;
  const int64_t lanes_, rows_;
  const MapStrides& y_;
  std::vector<TilePlace<Vectors>> places_;
  int64_t first_ = 0, last_ = 0;
};
