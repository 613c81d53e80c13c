#define ANYBIT_VNNI_TABLE vex_kernels
#include "avx2/vnni.inl"
