#include "bindings/module.hpp"

NB_MODULE(_native, m) {
  m.doc() = "anybit's native kernels; use anybit.ops and anybit.runtime instead of calling this module.";
  bind_kernels(m);
  bind_quick(m);
  bind_cast(m);
  bind_sweep(m);
  bind_patches(m);
  bind_planes(m);
  bind_peaks(m);
#ifdef ANYBIT_HAS_ENGINE
  bind_engine(m);
#endif
}
