// Both passes of batch normalisation, cpu/batch_norm.h. Included once per instruction set, after vector_kernel.h, inside a
// namespace that sets kVectorBytes; hence no include guard and no includes.

template <typename T>
struct BatchNorm {
  using Aligned = typename Vector<T>::Aligned;
  using Unaligned = typename Vector<T>::Unaligned;

  struct Sums {
    double first, product;
  };

  // Σ (a − a_mean) and Σ (a − a_mean) (b − b_mean) over all images of a field that starts at a and b. With Masked, a is 0
  // where `activated` is not positive.
  template <bool Masked = false>
  static Sums sums(const BatchNormParams& p, const T* a, T a_mean, const T* b, T b_mean, const T* activated = nullptr) {
    constexpr int lanes = Vector<T>::lanes, chains = 4, step = lanes * chains, most_steps = 64;
    Sums sums{0, 0};
    Aligned first[chains] = {}, product[chains] = {};
    const auto collect = [&] {
      const Aligned firsts = (first[0] + first[1]) + (first[2] + first[3]);
      const Aligned products = (product[0] + product[1]) + (product[2] + product[3]);
      for (int lane = 0; lane < lanes; ++lane) sums.first += firsts[lane], sums.product += products[lane];
      for (int chain = 0; chain < chains; ++chain) first[chain] = product[chain] = Aligned{};
    };
    int64_t steps = 0;
    const int64_t next = p.fields * p.numbers;
    for (int64_t image = 0; image < p.batch; ++image, a += next, b += next, activated += Masked ? next : 0) {
      int64_t i = 0;
      while (i + step <= p.numbers) {
        const int64_t end = i + std::min((p.numbers - i) / step, most_steps - steps) * step;
        steps += (end - i) / step;
        for (; i < end; i += step)
#pragma GCC unroll 4
          for (int chain = 0; chain < chains; ++chain) {
            Aligned of_a = *reinterpret_cast<const Unaligned*>(a + i + chain * lanes);
            if constexpr (Masked)
              of_a = *reinterpret_cast<const Unaligned*>(activated + i + chain * lanes) <= 0 ? Aligned{} : of_a;
            const Aligned from_a = of_a - a_mean;
            const Aligned from_b = *reinterpret_cast<const Unaligned*>(b + i + chain * lanes) - b_mean;
            first[chain] += from_a;
            product[chain] += from_a * from_b;
          }
        if (steps == most_steps) collect(), steps = 0;
      }
      for (; i < p.numbers; ++i) {
        const T from_a = (Masked && activated[i] <= 0 ? T{0} : a[i]) - a_mean;
        sums.first += from_a, sums.product += from_a * (b[i] - b_mean);
      }
    }
    collect();
    return sums;
  }

  // y = (x − center) · scale + shift of one field, or with relu max(y, 0).
  static void transform(const BatchNormParams& p, const T* x, T center, T scale, T shift, bool relu, T* y,
                        int64_t field) {
    for (int64_t image = 0; image < p.batch; ++image) {
      const int64_t at = (image * p.fields + field) * p.numbers;
      const T* __restrict x_at = x + at;
      T* __restrict y_at = y + at;
      if (relu)
        for (int64_t i = 0; i < p.numbers; ++i) {
          const T number = (x_at[i] - center) * scale + shift;
          y_at[i] = number < 0 ? T{0} : number;
        }
      else
        for (int64_t i = 0; i < p.numbers; ++i) y_at[i] = (x_at[i] - center) * scale + shift;
    }
  }

  static T scale_of(const BatchNormParams& p, const T* weight, const T* var, int64_t field) {
    return static_cast<T>((weight ? weight[field] : 1) / std::sqrt(var[field] + p.eps));
  }

  static void inference(const BatchNormParams& p, const T* x, const T* weight, const T* bias, const T* mean,
                        const T* var, bool relu, T* y, Fields fields) {
    for (int64_t field = fields.begin; field < fields.end; ++field) {
      const T scale = scale_of(p, weight, var, field), shift = (bias ? bias[field] : 0) - mean[field] * scale;
      transform(p, x, T{0}, scale, shift, relu, y, field);
    }
  }

  static void fprop(const BatchNormParams& p, const T* x, const T* weight, const T* bias, bool relu, T* y, T* mean,
                    T* var, Fields fields) {
    const double n = static_cast<double>(p.batch) * static_cast<double>(p.numbers);
    for (int64_t field = fields.begin; field < fields.end; ++field) {
      const T* from = x + field * p.numbers;
      // Any number of the field is a first guess at its mean, so that a large mean does not drown the rest.
      mean[field] = static_cast<T>(*from + sums(p, from, *from, from, *from).first / n);
      const Sums around = sums(p, from, mean[field], from, mean[field]);
      const double off = around.first / n;  // what rounding left between mean[field] and the mean
      var[field] = static_cast<T>(around.product / n - off * off);
      transform(p, x, mean[field], scale_of(p, weight, var, field), bias ? bias[field] : 0, relu, y, field);
    }
  }

  static void dgrad(const BatchNormParams& p, const T* dy, const T* x, const T* mean, const T* var, const T* weight,
                    const T* activated, T* dx, T* dweight, T* dbias, Fields fields) {
    const double n = static_cast<double>(p.batch) * static_cast<double>(p.numbers);
    for (int64_t field = fields.begin; field < fields.end; ++field) {
      const T center = mean[field];
      const int64_t first = field * p.numbers;
      const Sums found = activated ? sums<true>(p, dy + first, T{0}, x + first, center, activated + first)
                                   : sums(p, dy + first, T{0}, x + first, center);
      const double invstd = 1 / std::sqrt(var[field] + p.eps);
      dbias[field] = static_cast<T>(found.first);
      dweight[field] = static_cast<T>(found.product * invstd);
      if (!dx) continue;
      const T scale = static_cast<T>((weight ? weight[field] : 1) * invstd), dy_mean = static_cast<T>(found.first / n);
      const T slope = static_cast<T>(found.product * invstd * invstd / n);
      for (int64_t image = 0; image < p.batch; ++image) {
        const int64_t at = (image * p.fields + field) * p.numbers;
        const T* __restrict dy_at = dy + at, * __restrict x_at = x + at;
        T* __restrict dx_at = dx + at;
        if (const T* __restrict activated_at = activated ? activated + at : nullptr)
          for (int64_t i = 0; i < p.numbers; ++i)
            dx_at[i] = ((activated_at[i] <= 0 ? T{0} : dy_at[i]) - dy_mean - (x_at[i] - center) * slope) * scale;
        else
          for (int64_t i = 0; i < p.numbers; ++i) dx_at[i] = (dy_at[i] - dy_mean - (x_at[i] - center) * slope) * scale;
      }
    }
  }
};
