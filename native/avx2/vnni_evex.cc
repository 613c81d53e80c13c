#define ANYBIT_VNNI_TABLE evex_kernels
#include "avx2/vnni.inl"
