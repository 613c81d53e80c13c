#include "generic/dispatch.hpp"

#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <string>

#if defined(__aarch64__)
#include <sys/auxv.h>
#endif
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if ANYBIT_HAVE_AMX
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace anybit {

#define ANYBIT_TABLE(isa) \
  namespace isa {         \
  extern const Kernels kMatmulKernels; \
  }
#if ANYBIT_HAVE_AMX
namespace amx {
const Kernels& matmul_kernels();
}
#endif
#if ANYBIT_HAVE_AVX512
ANYBIT_TABLE(avx512)
namespace avx512 {
const Kernels& amd_kernels();
}
#endif
#if ANYBIT_HAVE_AVX2
ANYBIT_TABLE(avx2)
#if ANYBIT_HAVE_VNNI
namespace avx2 {
const Kernels& vex_kernels();
const Kernels& evex_kernels();
}
#endif
#endif
#if ANYBIT_HAVE_NEON
ANYBIT_TABLE(neon)
#if ANYBIT_HAVE_I8MM
namespace neon {
const Kernels& i8mm_kernels();
}
#endif
#endif
ANYBIT_TABLE(scalar)

namespace {

bool always() { return true; }

#if defined(__x86_64__)
struct CpuId { unsigned a = 0, b = 0, c = 0, d = 0; };
// What compilers have no name for, or not all of them.
CpuId cpuid(unsigned leaf, unsigned part) {
  CpuId of;
  if (!__get_cpuid_count(leaf, part, &of.a, &of.b, &of.c, &of.d)) return {};
  return of;
}
bool has_avx2() {
  __builtin_cpu_init();
  constexpr unsigned kF16c = 1u << 29;
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2") && (cpuid(1, 0).c & kF16c);
}
bool has_avx512() {
#ifdef ANYBIT_SIMDE
  return true;  // emulated
#endif
  __builtin_cpu_init();
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni") &&
         __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("avx512bitalg") &&
         __builtin_cpu_supports("gfni");
}
#endif
#if ANYBIT_HAVE_VNNI
bool has_vex_vnni() {
#ifdef ANYBIT_EMULATED_VNNI
  return has_avx2();
#endif
  return has_avx2() && (cpuid(7, 1).a & 1u << 4);
}
bool has_evex_vnni() {
#ifdef ANYBIT_EMULATED_VNNI
  return has_avx2();
#endif
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}
#endif
#if ANYBIT_HAVE_AVX512
bool has_avx512_bf16() {
#ifdef ANYBIT_SIMDE
  return true;
#endif
  return has_avx512() && __builtin_cpu_supports("avx512bf16");
}
// vdpbf16ps: one a cycle on AMD's processors, twice the products of fma; one in two cycles on Intel's, half of them.
bool is_amd() {
  __builtin_cpu_init();
  return __builtin_cpu_is("amd");
}
#endif
#if ANYBIT_HAVE_AMX
// Tiles are state that the kernel keeps only for processes that ask.
bool has_amx() {
#ifdef ANYBIT_SIMDE
  return true;
#endif
  if (!has_avx512_bf16()) return false;
  const unsigned d = cpuid(7, 0).d;
  constexpr unsigned kTile = 1u << 24, kInt8 = 1u << 25, kBf16 = 1u << 22;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return (d & kTile) && (d & kInt8) && (d & kBf16) && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#endif
#if defined(__aarch64__)
bool has_dotprod() { return (getauxval(AT_HWCAP) & (1ul << 20)) != 0; }  // HWCAP_ASIMDDP
#if ANYBIT_HAVE_I8MM
bool has_i8mm() { return has_dotprod() && (getauxval(AT_HWCAP2) & (1ul << 13)) != 0; }  // HWCAP2_I8MM
#endif
#endif

template <const Kernels& table> const Kernels& constant() { return table; }

// Best first.  Nothing runs to make it: whoever loads this may lack any of them.
constinit const IsaInfo kIsas[] = {
#if ANYBIT_HAVE_AMX
    {"amx", "amx", "AVX-512 and AMX with int8 and bf16", has_amx, amx::matmul_kernels},
#endif
#if ANYBIT_HAVE_AVX512
    {"avx512bf16", "avx512", "what avx512 needs and BF16; chosen where products of bf16 are faster than those of float32 (AMD)",
     has_avx512_bf16, avx512::amd_kernels, is_amd},
    {"avx512", "avx512", "AVX-512 F, BW, DQ, VL, VNNI, VBMI, VBMI2, BITALG, and GFNI", has_avx512, constant<avx512::kMatmulKernels>},
#endif
#if ANYBIT_HAVE_AVX2
#if ANYBIT_HAVE_VNNI
    {"avx512vnni", "avx2", "what avx2 needs, and AVX-512 VL and VNNI for products of bytes at 256 bits", has_evex_vnni, avx2::evex_kernels},
    {"avxvnni", "avx2", "what avx2 needs, and AVX-VNNI for products of bytes", has_vex_vnni, avx2::vex_kernels},
#endif
    {"avx2", "avx2", "AVX2, FMA, F16C, BMI2", has_avx2, constant<avx2::kMatmulKernels>},
#endif
#if ANYBIT_HAVE_NEON
#if ANYBIT_HAVE_I8MM
    {"i8mm", "neon", "what neon needs, and products of matrices of bytes (Armv8.6)", has_i8mm, neon::i8mm_kernels},
#endif
    {"neon", "neon", "NEON with dot products (Armv8.2)", has_dotprod, constant<neon::kMatmulKernels>},
#endif
    {"scalar", "scalar", "nothing", always, constant<scalar::kMatmulKernels>},
};

std::atomic<const IsaInfo*> active{nullptr};

const IsaInfo* find(std::string_view name) {
  std::string known;
  for (const IsaInfo& isa : kIsas) {
    if (name == "auto" && isa.supported() && (!isa.preferred || isa.preferred())) return &isa;
    if (name == isa.name) {
      if (isa.supported()) return &isa;
      throw std::invalid_argument("this machine lacks the instruction set '" + std::string(name) + "' (it needs " + isa.needs + ")");
    }
    known += std::string(known.empty() ? "" : ", ") + isa.name;
  }
  throw std::invalid_argument("unknown instruction set '" + std::string(name) + "'; this build has " + known);
}

}  // namespace

std::span<const IsaInfo> isa_list() { return kIsas; }

const IsaInfo& active_isa() {
  if (const IsaInfo* isa = active.load(std::memory_order_acquire)) return *isa;
  const char* forced = std::getenv("ANYBIT_ISA");
  set_isa(forced && *forced ? forced : "auto");
  return *active.load(std::memory_order_acquire);
}

void set_isa(std::string_view name) { active.store(find(name), std::memory_order_release); }

}  // namespace anybit
