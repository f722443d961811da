// Streams and errors of the launches in binding*.cpp. torch's CUDA headers and libraries are not needed, so that one
// build of this library loads with any torch of its version.
#pragma once

#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <cuda_runtime_api.h>

namespace gconv {

inline cudaStream_t current_stream(const at::Tensor& tensor) {
  const c10::impl::VirtualGuardImpl device(c10::DeviceType::CUDA);
  return static_cast<cudaStream_t>(device.getStream(tensor.device()).native_handle());
}

// Whether float32 products may be rounded to tf32, by whichever of torch's settings the user has chosen.
inline bool tf32_allowed() {
  return at::globalContext().float32Precision(at::Float32Backend::CUDA, at::Float32Op::MATMUL) ==
         at::Float32Precision::TF32;
}

inline void check_launch(cudaError_t error, const char* op) {
  if (error != cudaSuccess) cudaGetLastError();  // or the next call that asks for it would be told of it as well
  TORCH_CHECK(error == cudaSuccess, "gconv_ext::", op, ": ", cudaGetErrorString(error));
}

}  // namespace gconv
