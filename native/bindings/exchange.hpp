// Tensors of torch (or any library with the table) in C, without Python in between: the DLPack exchange API, version 1
// (https://dmlc.github.io/dlpack, `__dlpack_c_exchange_api__` of the tensor's type).  A short product is over before Python has looked up
// what x is; and where memory is busy, every line of code and data that the look-up touches comes from afar.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>

namespace anybit {

using Tensor = nanobind::dlpack::dltensor;

struct ManagedTensor {
  struct {
    uint32_t major, minor;
  } version;
  void* context;
  void (*deleter)(ManagedTensor*);
  uint64_t flags;
  Tensor tensor;
};

struct ExchangeApi {
  struct {
    uint32_t major, minor;
    void* older;
  } header;
  int (*allocate)(Tensor* prototype, ManagedTensor** out, void* context, void (*error)(void* context, const char* kind, const char* message));
  int (*take)(void* object, ManagedTensor** out);
  int (*give)(ManagedTensor* tensor, void** object);
  int (*view)(void* object, Tensor* out);  // nothing is owned; valid as long as the object is held
  int (*stream)(int device_type, int32_t device, void** out);
};

// The table of a type, null where it has none of this version.
const ExchangeApi* exchange_of(nanobind::handle type);

}  // namespace anybit
