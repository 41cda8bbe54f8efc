// Element ranges of the optimizer, one per instruction set.
#pragma once
#include <cstdint>

#include "core/cpu.h"
#include "ops/optimizer_math.h"

namespace sdpo {

// A float32 or bfloat16 array; data is null where it was not given.
struct FloatArray {
  void* data;
  bool bf16;
};

struct AdamwStep : AdamwSettings {
  FloatArray parameter, first, second, ema;
  const float* gradient;
  float* master;  // may be null

  explicit AdamwStep(const AdamwSettings& settings) : AdamwSettings(settings) {}
};

SDPO_SIMD_FUNCTION(adamw_range, (const AdamwStep& a, int64_t begin, int64_t end), (a, begin, end))

// sums[0]: the sum of squares; sums[1]: how many elements are not finite.
SDPO_SIMD_FUNCTION(squares_range, (const float* x, int64_t n, double* sums), (x, n, sums))

}  // namespace sdpo
