// The types of tensors that kernels take, on every device. No torch header here.
#pragma once

namespace gconv {

enum class ScalarType { Float64, Float32, BFloat16, Float16 };

}  // namespace gconv
