// The tables of ../irrep_tables.h as straight-line device code: every index is a compile-time constant, so that the planes
// stay in registers.
#pragma once

#include <type_traits>
#include <utility>

#include "../irrep_tables.h"
#include "device.h"

namespace gconv::cuda {

template <int N>
using Index = std::integral_constant<int, N>;

template <typename Function, int... Indices>
__device__ __forceinline__ void for_each_index(std::integer_sequence<int, Indices...>, Function&& function) {
  (function(Index<Indices>()), ...);
}

// function(Index<0>()), …, function(Index<N - 1>()).
template <int N, typename Function>
__device__ __forceinline__ void for_each_index(Function&& function) {
  for_each_index(std::make_integer_sequence<int, N>(), function);
}

// f[g] -> planes. Value needs +, - and a unary -: a number, or a pair of 16-bit ones.
template <typename Group, typename Value>
__device__ __forceinline__ void fourier(Value (&f)[Group::table.order]) {
  for_each_index<Group::table.butterfly_count>([&](auto i) {
    constexpr Butterfly step = Group::table.butterflies[i];
    const Value a = f[step.a], b = f[step.b];
    f[step.a] = a + b;
    f[step.b] = step.turned ? b - a : a - b;
  });
}

// Planes -> f[g]: the same butterflies transposed, the last first. The caller has scaled the planes by inverse_scales.
template <typename Group, typename Value>
__device__ __forceinline__ void inverse_fourier(Value (&f)[Group::table.order]) {
  for_each_index<Group::table.butterfly_count>([&](auto i) {
    constexpr Butterfly step = Group::table.butterflies[Group::table.butterfly_count - 1 - i];
    const Value a = f[step.a], b = f[step.b];
    f[step.a] = step.turned ? a - b : a + b;
    f[step.b] = step.turned ? a + b : a - b;
  });
}

// function(Index<y>(), Index<x>(), Index<w>(), std::bool_constant<negated>()) for each product, in the table's order.
template <typename Group, typename Function>
__device__ __forceinline__ void for_each_product(Function&& function) {
  for_each_index<product_count<Group>()>([&](auto i) {
    constexpr Product term = products<Group>()[i];
    function(Index<term.y>(), Index<term.x>(), Index<term.w>(), std::bool_constant<term.negated>());
  });
}

// Of the products with one plane of ŷ: function(Index<x>(), Index<w>(), std::bool_constant<negated>()).
template <typename Group, int Y, typename Function>
__device__ __forceinline__ void for_each_product_of_y(Function&& function) {
  for_each_product<Group>([&](auto y, auto x, auto w, auto negated) {
    if constexpr (decltype(y)::value == Y) function(x, w, negated);
  });
}

}  // namespace gconv::cuda
