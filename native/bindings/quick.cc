// `Quick`: a product whose weight, activations and number of rows are settled, called with a tensor and nothing else.
#include "bindings/exchange.hpp"

#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>

#include <array>
#include <memory>
#include <stdexcept>
#include <string>

#include "bindings/module.hpp"
#include "bindings/product.hpp"
#include "generic/dispatch.hpp"

namespace nb = nanobind;

namespace anybit {

const ExchangeApi* exchange_of(nb::handle type) {
  nb::object capsule = nb::getattr(type, "__dlpack_c_exchange_api__", nb::none());
  if (!PyCapsule_IsValid(capsule.ptr(), "dlpack_exchange_api")) return nullptr;
  const auto* api = static_cast<const ExchangeApi*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  return api->header.major == 1 && api->view && api->allocate && api->give ? api : nullptr;
}

namespace {

constexpr int kMostDims = 8;

bool plain(const Tensor& t) {
  if (t.device.device_type != nb::device::cpu::value || t.dtype != nb::dtype<float>() || t.ndim < 1 || t.ndim > kMostDims) return false;
  if (!t.strides) return true;
  int64_t stride = 1;
  for (int32_t d = t.ndim - 1; d >= 0; --d) {
    if (t.shape[d] != 1 && t.strides[d] != stride) return false;
    stride *= t.shape[d];
  }
  return true;
}

const float* values(const Tensor& t) { return reinterpret_cast<const float*>(static_cast<const char*>(t.data) + t.byte_offset); }

struct Quick {
  const ExchangeApi* api;
  WeightPtr weight;
  ActSpec spec;
  int64_t rows;
  int threads;
  const char* isa;

  Quick(nb::handle type, WeightPtr w, int64_t m, int64_t act_group, int levels, const std::string& whole)
      : api(exchange_of(type)), weight(std::move(w)), spec(spec_for(*weight, act_group, levels, 0, whole)), rows(m),
        threads(default_pool()->size()), isa(active_isa().name) {
    if (!api) throw std::invalid_argument("the type has no exchange API of DLPack 1");
  }

  bool view(nb::handle object, Tensor& out) const {
    if (api->view(object.ptr(), &out) == 0) return true;
    PyErr_Clear();
    return false;
  }

  // None where the tensors are not the plain ones it was made for, or the threads or instruction set have changed.
  nb::object call(nb::handle x, nb::handle bias) const {
    Tensor in, added;
    if (!view(x, in) || !plain(in) || in.shape[in.ndim - 1] != weight->k) return nb::none();
    int64_t m = 1;
    std::array<int64_t, kMostDims> shape;
    for (int32_t d = 0; d + 1 < in.ndim; ++d) m *= shape[static_cast<size_t>(d)] = in.shape[d];
    shape[static_cast<size_t>(in.ndim - 1)] = weight->n;
    if (m != rows || threads != default_pool()->size() || isa != active_isa().name) return nb::none();
    Epilogue epilogue;
    if (!bias.is_none()) {
      if (!view(bias, added) || !plain(added) || added.ndim != 1 || added.shape[0] != weight->n) return nb::none();
      epilogue.bias = values(added);
    }
    Tensor wanted = in;
    wanted.data = nullptr, wanted.shape = shape.data(), wanted.strides = nullptr, wanted.byte_offset = 0;
    ManagedTensor* allocated = nullptr;
    if (api->allocate(&wanted, &allocated, nullptr, [](void*, const char*, const char*) {}) != 0) {
      PyErr_Clear();
      return nb::none();
    }
    std::unique_ptr<ManagedTensor, void (*)(ManagedTensor*)> made(allocated, [](ManagedTensor* t) { t->deleter(t); });
    product(*weight, values(in), m, weight->k, spec, const_cast<float*>(values(made->tensor)), epilogue);
    void* object = nullptr;
    if (api->give(made.release(), &object) != 0) throw nb::python_error();
    return nb::steal(static_cast<PyObject*>(object));
  }
};

}  // namespace
}  // namespace anybit

void bind_quick(nb::module_& m) {
  using anybit::Quick;
  m.def("exchanges", [](nb::handle type) { return anybit::exchange_of(type) != nullptr; }, nb::arg("type"),
        "whether tensors of a type can be taken and made in C");
  nb::class_<Quick>(m, "Quick")
      .def(nb::init<nb::handle, anybit::WeightPtr, int64_t, int64_t, int, const std::string&>(), nb::arg("type"), nb::arg("weight"),
           nb::arg("rows"), nb::arg("act_group"), nb::arg("levels") = 127, nb::arg("whole") = "")
      .def("__call__", &Quick::call, nb::arg("x"), nb::arg("bias").none() = nb::none());
}
