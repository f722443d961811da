// Chooses a plan's class by scalar type and group. No torch header here.
#pragma once

#include "../irrep_tables.h"
#include "irrep.h"

namespace gconv::cpu {

// Class<S, Group> is derived from Plan and made from Params.
template <template <typename, typename> class Class, typename Plan, typename Params>
std::unique_ptr<Plan> make_plan(const Params& params) {
  return with_fourier_table(params.shape.group->name, [&](auto table) -> std::unique_ptr<Plan> {
    using Group = decltype(table);
    switch (params.type) {
      case ScalarType::Float32: return std::make_unique<Class<float, Group>>(params);
      case ScalarType::BFloat16: return std::make_unique<Class<BFloat16, Group>>(params);
#ifndef GCONV_FEW_TYPES  // an option of CMakeLists.txt
      case ScalarType::Float64: return std::make_unique<Class<double, Group>>(params);
      case ScalarType::Float16: return std::make_unique<Class<Float16, Group>>(params);
#endif
      default: return nullptr;
    }
  });
}

}  // namespace gconv::cpu
