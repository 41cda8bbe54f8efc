#include "backends/cpu/gemm.h"

#include "core/parallel.h"

namespace sdpo {
namespace {

float element(const GemmOperand& x, int64_t i, int64_t j) {
  const int64_t at = x.transposed ? j * x.ld + i : i * x.ld + j;
  return x.dtype == DType::F32 ? static_cast<const float*>(x.data)[at]
                               : bf16_to_f32(static_cast<const uint16_t*>(x.data)[at]);
}

}  // namespace

void gemm(int64_t m, int64_t n, int64_t k, const GemmOperand& a, const GemmOperand& b, float beta, float* c,
          int64_t ldc) {
  parallel_tasks(m, [&](int64_t i) {
    for (int64_t j = 0; j < n; j++) {
      float sum = 0;
      for (int64_t l = 0; l < k; l++) sum += element(a, i, l) * element(b, l, j);
      c[i * ldc + j] = (beta != 0 ? c[i * ldc + j] : 0) + sum;
    }
  });
}

void gemm_row_invariant(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const void* b,
                        DType b_dtype, int64_t ldb, float* c, int64_t ldc) {
  gemm(m, n, k, {a, DType::F32, lda, false}, {b, b_dtype, ldb, true}, 0, c, ldc);
}

const char* gemm_name() { return "built-in"; }

}  // namespace sdpo
