// `Quick`: a product whose weight and activations, and mostly the number of rows, are settled, called with a tensor and nothing else.
#include "bindings/exchange.hpp"

#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>

#include <array>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bindings/module.hpp"
#include "bindings/product.hpp"
#include "generic/arena.hpp"
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
constexpr size_t kLargeResult = 4 << 20;  // bytes; formats/native.py has the same for arrays

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

// A result whose pages an earlier one of about its size may have had.
struct Large {
  ManagedTensor managed{};
  std::shared_ptr<std::byte> memory;
  std::array<int64_t, kMostDims> shape{}, strides{};
};

ManagedTensor* large_result(const Tensor& wanted, size_t bytes, const ExchangeApi& api) {
  auto made = std::make_unique<Large>();
  made->memory = arena_allocate_result(bytes);
  int64_t stride = 1;
  for (int32_t d = wanted.ndim - 1; d >= 0; --d) {
    const auto i = static_cast<size_t>(d);
    made->shape[i] = wanted.shape[d], made->strides[i] = stride;
    stride *= wanted.shape[d];
  }
  made->managed.version = {api.header.major, api.header.minor};
  made->managed.tensor = wanted;
  made->managed.tensor.data = made->memory.get();
  made->managed.tensor.shape = made->shape.data(), made->managed.tensor.strides = made->strides.data();
  made->managed.context = made.get();
  made->managed.deleter = [](ManagedTensor* t) { delete static_cast<Large*>(t->context); };
  return &made.release()->managed;
}

// A product of which only x, y and the bias are open.
struct Settled {
  int64_t n, k;
  Settled(int64_t outputs, int64_t inputs) : n(outputs), k(inputs) {}
  Settled(const Settled&) = delete;
  Settled& operator=(const Settled&) = delete;
  virtual ~Settled() = default;
  virtual void run(const float* x, int64_t m, float* y, const float* bias) const = 0;
};

struct OfTiles final : Settled {
  WeightPtr weight;
  ActSpec spec;
  OfTiles(WeightPtr w, int64_t act_group, int levels, const std::string& whole, float scale)
      : Settled(w->n, w->k), weight(std::move(w)), spec(spec_for(*weight, act_group, levels, 0, whole, scale)) {}
  void run(const float* x, int64_t m, float* y, const float* bias) const override { product(*weight, x, m, spec, y, {.bias = bias}); }
};

struct OfPlanes final : Settled {
  std::vector<PlaneWeightPtr> weights;
  PlaneSpec spec;
  OfPlanes(PlaneWeightPtr w, int64_t act_group, int act_bits)
      : Settled(w->grid.n, w->grid.k), weights{std::move(w)}, spec(plane_spec(*weights.front(), act_group, act_bits)) {}
  void run(const float* x, int64_t m, float* y, const float* bias) const override { product(weights, x, m, spec, {y}, bias); }
};

struct OfParts final : Settled {
  std::shared_ptr<const Parts> parts;
  ActSpec spec;
  OfParts(std::shared_ptr<const Parts> p, int64_t act_group, int levels)
      : Settled(p->n, p->k), parts(std::move(p)), spec(spec_for(*parts->weights.front(), act_group, levels, 0, "")) {}
  void run(const float* x, int64_t m, float* y, const float* bias) const override { product(*parts, x, m, spec, y, bias); }
};

struct Quick {
  const ExchangeApi* api;
  std::unique_ptr<const Settled> settled;
  int64_t rows;  // negative: any number
  int threads;
  const char* isa;

  Quick(nb::handle type, int64_t m, std::unique_ptr<const Settled> product_of)
      : api(exchange_of(type)), settled(std::move(product_of)), rows(m), threads(default_pool()->size()), isa(active_isa().name) {
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
    if (!view(x, in) || !plain(in) || in.shape[in.ndim - 1] != settled->k) return nb::none();
    int64_t m = 1;
    std::array<int64_t, kMostDims> shape;
    for (int32_t d = 0; d + 1 < in.ndim; ++d) m *= shape[static_cast<size_t>(d)] = in.shape[d];
    shape[static_cast<size_t>(in.ndim - 1)] = settled->n;
    if (m == 0 || (rows >= 0 && m != rows) || threads != default_pool()->size() || isa != active_isa().name) return nb::none();
    const float* bias_values = nullptr;
    if (!bias.is_none()) {
      if (!view(bias, added) || !plain(added) || added.ndim != 1 || added.shape[0] != settled->n) return nb::none();
      bias_values = values(added);
    }
    Tensor wanted = in;
    wanted.data = nullptr, wanted.shape = shape.data(), wanted.strides = nullptr, wanted.byte_offset = 0;
    ManagedTensor* allocated = nullptr;
    const size_t bytes = sizeof(float) * static_cast<size_t>(m) * static_cast<size_t>(settled->n);
    if (bytes >= kLargeResult) {
      allocated = large_result(wanted, bytes, *api);
    } else if (api->allocate(&wanted, &allocated, nullptr, [](void*, const char*, const char*) {}) != 0) {
      PyErr_Clear();
      return nb::none();
    }
    std::unique_ptr<ManagedTensor, void (*)(ManagedTensor*)> made(allocated, [](ManagedTensor* t) { t->deleter(t); });
    settled->run(values(in), m, const_cast<float*>(values(made->tensor)), bias_values);
    void* object = nullptr;
    if (api->give(made.release(), &object) != 0) throw nb::python_error();
    return nb::steal(static_cast<PyObject*>(object));
  }
};

}  // namespace
}  // namespace anybit

void bind_quick(nb::module_& m) {
  using namespace anybit;
  m.def("exchanges", [](nb::handle type) { return exchange_of(type) != nullptr; }, nb::arg("type"),
        "whether tensors of a type can be taken and made in C");
  nb::class_<Quick>(m, "Quick")
      .def("__init__", [](Quick* self, nb::handle type, WeightPtr w, int64_t rows, int64_t act_group, int levels, const std::string& whole,
                          float scale) {
             new (self) Quick(type, rows, std::make_unique<OfTiles>(std::move(w), act_group, levels, whole, scale));
           }, nb::arg("type"), nb::arg("weight"), nb::arg("rows"), nb::arg("act_group"), nb::arg("levels") = 127, nb::arg("whole") = "",
           nb::arg("scale") = 0.0f)
      .def("__init__", [](Quick* self, nb::handle type, PlaneWeightPtr w, int64_t rows, int64_t act_group, int act_bits) {
             new (self) Quick(type, rows, std::make_unique<OfPlanes>(std::move(w), act_group, act_bits));
           }, nb::arg("type"), nb::arg("weight"), nb::arg("rows"), nb::arg("act_group"), nb::arg("act_bits"))
      .def("__init__", [](Quick* self, nb::handle type, std::shared_ptr<const Parts> p, int64_t act_group, int levels) {
             new (self) Quick(type, -1, std::make_unique<OfParts>(std::move(p), act_group, levels));
           }, nb::arg("type"), nb::arg("parts"), nb::arg("act_group"), nb::arg("levels"))
      .def("__call__", &Quick::call, nb::arg("x"), nb::arg("bias").none() = nb::none());
}
