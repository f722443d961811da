// Included once per instruction set by expand_filter.cpp, inside a namespace; hence no include guard and no includes.
// Every inner loop runs over one block of contiguous numbers, so that the compiler vectorises it.

// coefficient[(l, u, (w, s))]: the relaxed weight that multiplies each position of bank l for output element u.
template <typename T, typename Params>
std::vector<accumulate_t<T>> coefficients(const Params& p) {
  const FilterShape& shape = p.shape;
  const int64_t elements = shape.elements(), taps = shape.taps();
  const T* relaxed_weight = static_cast<const T*>(p.relaxed_weight);
  std::vector<accumulate_t<T>> result;
  result.reserve(shape.banks * elements * shape.block());
  for (int64_t l = 0; l < shape.banks; ++l)
    for (int u = 0; u < elements; ++u)
      for (int w = 0; w < shape.relative_elements(); ++w)
        result.insert(result.end(), taps,
                      widen(relaxed_weight[l * elements + relaxed_element(shape, p.relax_on, u, w)]));
  return result;
}

template <typename T>
void expand_filter_range(const ExpandFilterParams& p, int64_t begin, int64_t end) {
  using Acc = accumulate_t<T>;
  const FilterShape& shape = p.shape;
  const int64_t elements = shape.elements(), block = shape.block();
  const T* weight = static_cast<const T*>(p.weight);
  T* filter = static_cast<T*>(p.filter);
  const std::vector<Acc> coefficient = p.relaxed_weight ? coefficients<T>(p) : std::vector<Acc>();
  std::vector<Acc> sum_buffer(block);
  Acc* __restrict__ sum = sum_buffer.data();

  for (int64_t pair = begin; pair < end; ++pair) {
    const int64_t o = pair / shape.in_fields, c = pair % shape.in_fields;
    for (int64_t u = 0; u < elements; ++u) {
      if (p.relaxed_weight) {
        for (int64_t j = 0; j < block; ++j) sum[j] = 0;
        for (int64_t l = 0; l < shape.banks; ++l) {
          const T* __restrict__ bank = weight + (l * shape.pairs() + pair) * block;
          const Acc* __restrict__ factor = coefficient.data() + (l * elements + u) * block;
          for (int64_t j = 0; j < block; ++j) sum[j] += factor[j] * widen(bank[j]);
        }
      } else if (u == 0) {
        const T* __restrict__ bank = weight + pair * block;
        for (int64_t j = 0; j < block; ++j) sum[j] = widen(bank[j]);
      }
      const int32_t* __restrict__ from = p.moved + shape.group->inverse[u] * block;  // (v, t) -> (u⁻¹v, u⁻¹t)
      T* __restrict__ row = filter + ((o * elements + u) * shape.in_fields + c) * block;
      for (int64_t j = 0; j < block; ++j) row[j] = narrow<T>(sum[from[j]]);
    }
  }
}

template <typename T>
void expand_filter_backward_range(const ExpandFilterBackwardParams& p, int64_t begin, int64_t end) {
  using Acc = accumulate_t<T>;
  const FilterShape& shape = p.shape;
  const int64_t elements = shape.elements(), block = shape.block(), banks = shape.banks;
  const T* weight = static_cast<const T*>(p.weight);
  const T* grad_filter = static_cast<const T*>(p.grad_filter);
  T* grad_weight = static_cast<T*>(p.grad_weight);
  const std::vector<Acc> coefficient = p.relaxed_weight ? coefficients<T>(p) : std::vector<Acc>();
  std::vector<Acc> grad_coefficient(p.grad_relaxed_weight ? banks * elements * block : 0);
  std::vector<Acc> moved_back_buffer(block), grad_bank(banks * block);
  Acc* __restrict__ moved_back = moved_back_buffer.data();

  for (int64_t o = begin; o < end; ++o) {
    std::fill(grad_coefficient.begin(), grad_coefficient.end(), Acc(0));
    for (int64_t c = 0; c < shape.in_fields; ++c) {
      const int64_t pair = o * shape.in_fields + c;
      std::fill(grad_bank.begin(), grad_bank.end(), Acc(0));
      for (int64_t u = 0; u < elements; ++u) {
        const T* __restrict__ row = grad_filter + ((o * elements + u) * shape.in_fields + c) * block;
        const int32_t* __restrict__ to = p.moved + u * block;  // (w, s) -> (u·w, u·s)
        for (int64_t j = 0; j < block; ++j) moved_back[j] = widen(row[to[j]]);
        for (int64_t l = 0; l < banks; ++l) {
          const int64_t lu = (l * elements + u) * block;
          Acc* __restrict__ grad = grad_bank.data() + l * block;
          if (!grad_weight) {
          } else if (p.relaxed_weight) {
            const Acc* __restrict__ factor = coefficient.data() + lu;
            for (int64_t j = 0; j < block; ++j) grad[j] += factor[j] * moved_back[j];
          } else {
            for (int64_t j = 0; j < block; ++j) grad[j] += moved_back[j];
          }
          if (p.grad_relaxed_weight) {
            const T* __restrict__ bank = weight + (l * shape.pairs() + pair) * block;
            Acc* __restrict__ share = grad_coefficient.data() + lu;
            for (int64_t j = 0; j < block; ++j) share[j] += widen(bank[j]) * moved_back[j];
          }
        }
      }
      if (grad_weight)
        for (int64_t l = 0; l < banks; ++l) {
          const Acc* __restrict__ grad = grad_bank.data() + l * block;
          T* __restrict__ out = grad_weight + (l * shape.pairs() + pair) * block;
          for (int64_t j = 0; j < block; ++j) out[j] = narrow<T>(grad[j]);
        }
    }
    if (p.grad_relaxed_weight) {
      double* share = p.grad_relaxed_weight + o * banks * elements;
      std::fill(share, share + banks * elements, 0.0);
      const Acc* next = grad_coefficient.data();
      for (int64_t l = 0; l < banks; ++l)
        for (int u = 0; u < elements; ++u)
          for (int w = 0; w < shape.relative_elements(); ++w)
            for (int64_t s = 0; s < shape.taps(); ++s)
              share[l * elements + relaxed_element(shape, p.relax_on, u, w)] += *next++;
    }
  }
}

inline void expand_filter(const ExpandFilterParams& p, int64_t begin, int64_t end) {
  switch (p.type) {
    case ScalarType::Float64: return expand_filter_range<double>(p, begin, end);
    case ScalarType::Float32: return expand_filter_range<float>(p, begin, end);
    case ScalarType::BFloat16: return expand_filter_range<BFloat16>(p, begin, end);
    case ScalarType::Float16: return expand_filter_range<Float16>(p, begin, end);
  }
}

inline void expand_filter_backward(const ExpandFilterBackwardParams& p, int64_t begin, int64_t end) {
  switch (p.type) {
    case ScalarType::Float64: return expand_filter_backward_range<double>(p, begin, end);
    case ScalarType::Float32: return expand_filter_backward_range<float>(p, begin, end);
    case ScalarType::BFloat16: return expand_filter_backward_range<BFloat16>(p, begin, end);
    case ScalarType::Float16: return expand_filter_backward_range<Float16>(p, begin, end);
  }
}
