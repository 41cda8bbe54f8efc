// Instruction sets: one binary holds kernels for each, chosen at run time.
// SDPO_ISA=baseline|avx2|avx512 in the environment forces one; set_isa does the same for tests.
#pragma once
#include <string>
#include <vector>

namespace sdpo {

enum class Isa { Baseline = 0, Avx2 = 1, Avx512 = 2 };

const char* isa_name(Isa isa);
std::vector<Isa> available_isas();  // what this processor runs, weakest first
Isa current_isa();
void set_isa(const std::string& name);  // throws Error where the processor lacks it
bool cpu_has_bf16();                    // AVX-512 BF16 or AMX: bf16 GEMM is worth giving to a library

}  // namespace sdpo

// Declares a function that a `*.simd.cpp` file defines once per instruction set (see core/simd.h), and
// defines the dispatching function of the same name in namespace sdpo.
#if defined(__x86_64__)
#define SDPO_SIMD_FUNCTION(name, params, args) \
  namespace baseline {                         \
  void name params;                            \
  }                                            \
  namespace avx2 {                             \
  void name params;                            \
  }                                            \
  namespace avx512 {                           \
  void name params;                            \
  }                                            \
  inline void name params {                    \
    switch (current_isa()) {                   \
      case Isa::Avx512:                        \
        return avx512::name args;              \
      case Isa::Avx2:                          \
        return avx2::name args;                \
      default:                                 \
        return baseline::name args;            \
    }                                          \
  }
#else
#define SDPO_SIMD_FUNCTION(name, params, args) \
  namespace baseline {                         \
  void name params;                            \
  }                                            \
  inline void name params { baseline::name args; }
#endif
