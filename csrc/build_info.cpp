// What was built, for `gconv-ext info` and for the test that compares the group tables. Needs no torch to load, so it
// can answer even when the ops cannot be loaded.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "cpu/instruction_set.h"
#include "group_tables.h"
#include "irrep_tables.h"

namespace py = pybind11;

namespace {

py::dict build_info() {
  py::dict info;
  info["torch"] = GCONV_TORCH_VERSION;
#if defined(__clang__)
  info["compiler"] = std::string("clang ") + __clang_version__;
#elif defined(__GNUC__)
  info["compiler"] = std::string("gcc ") + __VERSION__;
#else
  info["compiler"] = "unknown";
#endif
  info["c++"] = static_cast<long>(__cplusplus);
#ifdef _OPENMP
  info["openmp"] = true;
#else
  info["openmp"] = false;
#endif
  info["instruction set"] = gconv::cpu::name(gconv::cpu::best_instruction_set());
  info["cuda"] = GCONV_CUDA_INFO;
  return info;
}

py::dict group_tables() {
  py::dict tables;
  for (const gconv::PointGroup& group : gconv::kPointGroups) {
    std::vector<std::vector<std::vector<int>>> matrices;
    std::vector<std::vector<int>> product;
    std::vector<int> inverse;
    for (int g = 0; g < group.order; ++g) {
      const gconv::Matrix& m = group.matrices[g];
      matrices.push_back({{m.rr, m.rc}, {m.cr, m.cc}});
      product.emplace_back(group.product[g].begin(), group.product[g].begin() + group.order);
      inverse.push_back(group.inverse[g]);
    }
    tables[py::str(std::string(group.name))] = py::make_tuple(matrices, product, inverse);
  }
  return tables;
}

py::dict irrep_tables() {
  py::dict tables;
  for (const gconv::PointGroup& group : gconv::kPointGroups)
    tables[py::str(std::string(group.name))] = gconv::with_fourier_table(group.name, [](auto fourier) {
      using Fourier = decltype(fourier);
      py::list butterflies, products;
      for (const gconv::Butterfly& step : Fourier::table.butterflies)
        butterflies.append(py::make_tuple(step.a, step.b, step.turned));
      for (const gconv::Product& term : gconv::products<Fourier>())
        products.append(py::make_tuple(term.y, term.x, term.w, term.negated));
      return py::make_tuple(py::tuple(butterflies), py::tuple(products),
                            py::tuple(py::cast(gconv::inverse_scales<Fourier>())));
    });
  return tables;
}

}  // namespace

PYBIND11_MODULE(_build_info, m) {
  m.def("build_info", &build_info, "What this build was made with, and the instruction set that its kernels use here.");
  m.def("group_tables", &group_tables, "{name: (matrices, product, inverse)} as compiled.");
  m.def("irrep_tables", &irrep_tables, "{name: (butterflies, products, inverse scales)} as compiled.");
}
