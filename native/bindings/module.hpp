#pragma once

#include <nanobind/nanobind.h>

void bind_kernels(nanobind::module_& m);
void bind_quick(nanobind::module_& m);
void bind_cast(nanobind::module_& m);
void bind_sweep(nanobind::module_& m);
void bind_patches(nanobind::module_& m);
void bind_planes(nanobind::module_& m);
void bind_peaks(nanobind::module_& m);
void bind_engine(nanobind::module_& m);
