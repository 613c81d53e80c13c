// How small functions of kernels become part of their callers: always, or, where only results matter, never.
#pragma once

#if defined(ANYBIT_SANITIZE) || defined(ANYBIT_SIMDE) || defined(ANYBIT_PLAIN_CALLS)
// every load is checked, or every instruction is many, or a test is to be compiled soon: seconds instead of minutes
#define ANYBIT_INLINE __attribute__((noinline))
#define ANYBIT_UNROLLED
#else
#define ANYBIT_INLINE inline __attribute__((always_inline))
#define ANYBIT_UNROLLED __attribute__((always_inline))
#endif
