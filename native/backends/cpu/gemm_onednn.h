// One tile of a product by oneDNN, on the calling thread alone: the cut into tiles is ours, because OpenMP's
// threads would spin on the processors that the pool uses.
#pragma once
#include <string>

#include "backends/cpu/gemm.h"

namespace sdpo {

bool onednn_built();
std::string onednn_name();  // "oneDNN 2.6.3"

// float32 operands.
void onednn_tile(int64_t m, int64_t n, int64_t k, const GemmOperand& a, const GemmOperand& b, float beta,
                 float* c, int64_t ldc);
// bfloat16 operands.
void onednn_bf16_tile(int64_t m, int64_t n, int64_t k, const GemmOperand& a, const GemmOperand& b, float beta,
                      float* c, int64_t ldc);

}  // namespace sdpo
