// Element ranges of add, scale and lerp, one per instruction set.
#pragma once
#include <cstdint>

#include "core/cpu.h"

namespace sdpo {

SDPO_SIMD_FUNCTION(add_range, (float* x, const float* y, int64_t n), (x, y, n))
SDPO_SIMD_FUNCTION(scale_range, (float* x, float factor, int64_t n), (x, factor, n))

// Elements [begin, end) of float32 or bfloat16 arrays.
SDPO_SIMD_FUNCTION(lerp_range,
                   (void* x, bool x_bf16, const void* y, bool y_bf16, float rate, int64_t begin, int64_t end),
                   (x, x_bf16, y, y_bf16, rate, begin, end))

}  // namespace sdpo
