// What a call asks before it knows whether there was one like it (gconv_ext/plan_cache.py, gconv_ext/kept.py), and irrep fprop
// without PyTorch's search for the right overload. In Python each of these is dozens of steps, which between two layers have
// left the processor's caches and take as long as a small convolution.
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/forward_grad.h>
#include <torch/csrc/autograd/python_variable.h>

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <array>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>

#include "fingerprint.h"
#include "irrep.h"

namespace {

// Bytes of one call. What does not fit is no ordinary call.
class Bytes {
 public:
  template <typename T>
  void add(T value) {
    add(&value, sizeof value);
  }
  void add(const void* from, size_t count) {
    fits_ = fits_ && count <= sizeof bytes_ - size_;
    if (!fits_) return;
    std::memcpy(bytes_ + size_, from, count);
    size_ += count;
  }
  bool fits() const { return fits_; }
  PyObject* to_python() const {
    if (!fits_) Py_RETURN_NONE;
    return PyBytes_FromStringAndSize(bytes_, static_cast<Py_ssize_t>(size_));
  }

 private:
  char bytes_[1024];
  size_t size_ = 0;
  bool fits_ = true;
};

PyTypeObject* point_group = nullptr;  // gconv_ext.PointGroup

// Whether PyTorch computes functions of plain tensors now, as they are: no trace, transform, mode or autocast, and no
// forward-mode derivatives. All but the last of these change the dispatcher's state.
bool is_eager() {
  const c10::impl::LocalDispatchKeySet keys = c10::impl::tls_local_dispatch_key_set();
  return (keys.included_ - c10::default_included_set).empty() && (c10::default_excluded_set - keys.excluded_).empty() &&
         torch::autograd::ForwardADLevel::try_get_by_idx(0) == nullptr;
}

bool is_tensor(PyObject* object) {
  const auto* type = reinterpret_cast<PyObject*>(Py_TYPE(object));
  return type == THPVariableClass || type == ParameterClass;
}

void add_shape(Bytes& bytes, const at::Tensor& tensor) {
  bytes.add(tensor.scalar_type());
  bytes.add(static_cast<int32_t>(tensor.dim()));
  bytes.add(tensor.sizes().data(), tensor.dim() * sizeof(int64_t));
}

// Adds what the checks and the choice look at; false where there is more to know of the argument.
bool add_argument(Bytes& bytes, PyObject* argument) {
  if (is_tensor(argument)) {
    const at::Tensor& tensor = THPVariable_Unpack(argument);
    if (tensor.layout() != at::kStrided || tensor.is_nested()) return false;
    bytes.add(tensor.requires_grad() ? 'R' : 'T');
    bytes.add(tensor.device().type());
    bytes.add(tensor.device().index());
    add_shape(bytes, tensor);
    bytes.add(tensor.strides().data(), tensor.dim() * sizeof(int64_t));
    return true;
  }
  if (argument == Py_None) {
    bytes.add('N');
    return true;
  }
  if (PyBool_Check(argument)) {
    bytes.add(argument == Py_True ? '1' : '0');
    return true;
  }
  if (PyLong_CheckExact(argument)) {
    int overflow = 0;
    bytes.add('I');
    bytes.add(static_cast<int64_t>(PyLong_AsLongLongAndOverflow(argument, &overflow)));
    return !overflow;
  }
  if (PyUnicode_CheckExact(argument)) {
    Py_ssize_t count = 0;
    const char* text = PyUnicode_AsUTF8AndSize(argument, &count);
    if (!text) {
      PyErr_Clear();
      return false;
    }
    bytes.add('S');
    bytes.add(count);
    bytes.add(text, count);
    return true;
  }
  if (PyTuple_CheckExact(argument)) {
    bytes.add('(');
    bytes.add(PyTuple_GET_SIZE(argument));
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(argument); ++i)
      if (!add_argument(bytes, PyTuple_GET_ITEM(argument, i))) return false;
    return true;
  }
  if (Py_TYPE(argument) == point_group) {
    PyObject* name = PyObject_GetAttrString(argument, "name");
    bytes.add('G');
    const bool added = name && add_argument(bytes, name);
    Py_XDECREF(name);
    PyErr_Clear();
    return added;
  }
  return false;
}

const at::Tensor& as_tensor(PyObject* argument) {
  TORCH_CHECK_TYPE(THPVariable_Check(argument), "expected a tensor, got ", Py_TYPE(argument)->tp_name);
  return THPVariable_Unpack(argument);
}

std::optional<at::Tensor> as_optional_tensor(PyObject* argument) {
  if (argument == Py_None) return std::nullopt;
  return as_tensor(argument);
}

std::string_view as_text(PyObject* argument) {
  Py_ssize_t count = 0;
  const char* text = PyUnicode_Check(argument) ? PyUnicode_AsUTF8AndSize(argument, &count) : nullptr;
  TORCH_CHECK_TYPE(text, "expected a str, got ", Py_TYPE(argument)->tp_name);
  return {text, static_cast<size_t>(count)};
}

int64_t as_integer(PyObject* argument) {
  int overflow = 0;
  const int64_t value = PyLong_Check(argument) ? PyLong_AsLongLongAndOverflow(argument, &overflow) : 0;
  TORCH_CHECK_TYPE(PyLong_Check(argument) && !overflow, "expected an int of 64 bits, got ", Py_TYPE(argument)->tp_name);
  return value;
}

std::array<int64_t, 2> as_pair(PyObject* argument) {
  TORCH_CHECK_TYPE(PyTuple_Check(argument) && PyTuple_GET_SIZE(argument) == 2, "expected a pair of ints");
  return {as_integer(PyTuple_GET_ITEM(argument, 0)), as_integer(PyTuple_GET_ITEM(argument, 1))};
}

PyObject* signature(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  if (!is_eager()) Py_RETURN_NONE;
  Bytes bytes;
  bytes.add(c10::GradMode::is_enabled());
  for (Py_ssize_t i = 0; i < count; ++i)
    if (!add_argument(bytes, arguments[i])) Py_RETURN_NONE;
  return bytes.to_python();
  END_HANDLE_TH_ERRORS
}

PyObject* contents(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  Bytes bytes;
  bytes.add(c10::InferenceMode::is_enabled());
  for (Py_ssize_t i = 0; i < count; ++i) {
    if (arguments[i] == Py_None) continue;
    const at::Tensor& tensor = as_tensor(arguments[i]);
    TORCH_CHECK_VALUE(tensor.is_cpu(), "expected a tensor on the CPU, got one on ", tensor.device());
    add_shape(bytes, tensor);
    bytes.add(gconv::fingerprint(tensor.resolve_conj().resolve_neg()));
  }
  return bytes.to_python();
  END_HANDLE_TH_ERRORS
}

PyObject* irrep_fprop(PyObject*, PyObject* const* a, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  TORCH_CHECK_TYPE(count == 12, "irrep_fprop: expected 12 arguments, got ", count);
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("gconv_ext::irrep_fprop", "")
                             .typed<decltype(gconv::irrep_fprop_cpu)>();
  const at::Tensor x = as_tensor(a[0]), weight = as_tensor(a[1]);
  const std::optional<at::Tensor> relaxed_weight = as_optional_tensor(a[2]), bias = as_optional_tensor(a[3]),
                                  transformed_weight = as_optional_tensor(a[4]);
  const std::array<int64_t, 2> stride = as_pair(a[7]), padding = as_pair(a[8]), dilation = as_pair(a[9]);
  const std::string_view group = as_text(a[5]), relax_on = as_text(a[6]);
  const int64_t groups = as_integer(a[10]);
  const bool relu = a[11] == Py_True;
  at::Tensor y;
  {
    const pybind11::gil_scoped_release others_may_run;
    y = op.call(x, weight, relaxed_weight, bias, transformed_weight, group, relax_on, stride, padding, dilation, groups,
                relu);
  }
  return THPVariable_Wrap(std::move(y));
  END_HANDLE_TH_ERRORS
}

PyObject* set_point_group(PyObject*, PyObject* type) {
  if (!PyType_Check(type)) return PyErr_Format(PyExc_TypeError, "set_point_group: expected a class");
  Py_INCREF(type);
  point_group = reinterpret_cast<PyTypeObject*>(type);
  Py_RETURN_NONE;
}

template <typename Function>
PyCFunction as_method(Function function) noexcept {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

PyMethodDef methods[] = {
    {"signature", as_method(signature), METH_FASTCALL,
     "Bytes that differ wherever checks or choice may: of tensors their shapes, strides, types, devices and whether they\n"
     "require gradients, of other arguments their values and types; or None where there may be more to know."},
    {"contents", as_method(contents), METH_FASTCALL,
     "Bytes of the shapes, types and numbers of tensors on the CPU, and of whether inference mode is on; 128 bits for the\n"
     "numbers of each, equal for equal bits, for different ones with a probability of 2^-64 at most."},
    {"irrep_fprop", as_method(irrep_fprop), METH_FASTCALL,
     "The op of that name: tensors, str, tuples, int and bool, no keywords."},
    {"set_point_group", set_point_group, METH_O, "Tells signature the class of groups."},
    {},
};

PyModuleDef module = {PyModuleDef_HEAD_INIT, "_C", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace

// The name that Python looks for. NOLINTNEXTLINE(bugprone-reserved-identifier)
PyMODINIT_FUNC PyInit__C() { return PyModule_Create(&module); }
