// The built-in matrix products' kernels, defined once per instruction set in gemm*.simd.cpp, and the sizes
// that they share with the code that cuts products into tasks.
#pragma once
#include "backends/cpu/gemm.h"
#include "core/cpu.h"

namespace sdpo {

// A depth block and the widest tile: a packed block of B (kGemmDepth x kGemmColumns floats) stays in the
// second-level cache, a packed panel of A (kGemmDepth x at most kGemmRowStep floats) in the first.
constexpr int64_t kGemmDepth = 384, kGemmColumns = 384;
// Tiles begin at multiples of these, so that only the last ones have remainders.
constexpr int64_t kGemmRowStep = 12, kGemmColumnStep = 96;
constexpr int64_t kGemmPackFloats = kGemmDepth * (kGemmColumns + kGemmRowStep);

struct GemmTile {
  int64_t m, n, k;  // n at most kGemmColumns
  GemmOperand a, b;
  float beta;
  float* c;
  int64_t ldc;
  float* pack;  // kGemmPackFloats, aligned to 64 bytes
};

// One tile of C = op(A) op(B) + beta C on this thread. Every element is one chain of multiply-adds in the
// order of k, cut at multiples of a depth that follows from k alone: the tiling does not show in the result.
SDPO_SIMD_FUNCTION(gemm_tile, (const GemmTile& tile), (tile))

struct RowsBlock {
  int64_t m, n, k;
  const float* a;
  int64_t lda;
  const void* b;
  DType b_dtype;
  int64_t ldb;
  float* c;
  int64_t ldc;
};

// C = A B^T as dot products along k: kLanes partial sums, then a fixed tree over them, for every shape.
SDPO_SIMD_FUNCTION(gemm_rows, (const RowsBlock& block), (block))

// float32 to bfloat16, to the nearest, ties to even.
SDPO_SIMD_FUNCTION(gemm_round, (const float* from, int64_t n, uint16_t* to), (from, n, to))

}  // namespace sdpo
