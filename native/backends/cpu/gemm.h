// C = op(A) op(B) + beta C, float32 accumulation, row-major, over the process's threads.
// For fixed sizes and leading dimensions the result is the same bits on the same machine, whatever the
// number of threads.
// float32 products go to oneDNN where the addon was built with it, else to the built-in kernels, which also
// take bfloat16. SDPO_GEMM=builtin|onednn in the environment forces one; it is an error where it is absent.
// SDPO_GEMM=bf16 changes only that every product with bf16_compute rounds A, the small ones too: for tests.
#pragma once
#include <cstdint>
#include <string>

#include "core/dtype.h"

namespace sdpo {

// A matrix as stored: element (i, j) at data[i * ld + j], and transposed for op.
struct GemmOperand {
  const void* data;
  DType dtype;  // F32 or BF16
  int64_t ld;
  bool transposed;
};

// C [m,n], op(A) [m,k], op(B) [k,n]; beta 0 (C is not read) or 1. bf16_compute permits rounding A to bfloat16
// where B is bfloat16 and that is faster (oneDNN on a processor with AVX-512 BF16 or AMX); otherwise bfloat16
// is widened to float32.
void gemm(int64_t m, int64_t n, int64_t k, const GemmOperand& a, const GemmOperand& b, float beta, float* c,
          int64_t ldc, bool bf16_compute = false);

// C = A B^T with A [m,k] float32 and B [n,k], neither transposed in memory. Each row of C depends on its row
// of A alone, bit for bit, whatever m is: generation relies on it.
void gemm_row_invariant(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const void* b,
                        DType b_dtype, int64_t ldb, float* c, int64_t ldc);

std::string gemm_name();  // "oneDNN 2.6.3" or "built-in"

// "builtin", "onednn" or "bf16", as SDPO_GEMM; or "fastest", the default. Throws Error where it is absent.
void set_gemm(const std::string& name);

}  // namespace sdpo
