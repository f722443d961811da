// The point groups as types: matrices, inverses and Fourier tables as compile-time constants of a kernel.
#pragma once

#include <string_view>

#include "../group_tables.h"
#include "../irrep_tables.h"

namespace gconv::cuda {

struct GroupC1 : FourierC1 {
  static constexpr PointGroup group = kPointGroups[0];
};
struct GroupC2 : FourierC2 {
  static constexpr PointGroup group = kPointGroups[1];
};
struct GroupC4 : FourierC4 {
  static constexpr PointGroup group = kPointGroups[2];
};
struct GroupD1 : FourierC2 {
  static constexpr PointGroup group = kPointGroups[3];
};
struct GroupD2 : FourierD2 {
  static constexpr PointGroup group = kPointGroups[4];
};
struct GroupD4 : FourierD4 {
  static constexpr PointGroup group = kPointGroups[5];
};

// Calls function(Group…{}) for the group of that name.
template <typename Function>
auto with_group(std::string_view name, Function function) {
  if (name == "C1") return function(GroupC1{});
  if (name == "C2") return function(GroupC2{});
  if (name == "C4") return function(GroupC4{});
  if (name == "D1") return function(GroupD1{});
  if (name == "D2") return function(GroupD2{});
  return function(GroupD4{});
}

}  // namespace gconv::cuda
