// Rotation of a token's heads, one per instruction set.
#pragma once
#include <cstdint>

#include "core/cpu.h"

namespace sdpo {

// cosine and sine: working memory for `half` elements each, rounded up to a multiple of 16.
SDPO_SIMD_FUNCTION(rope_token,
                   (float* x, int64_t heads, int64_t half, float position, const float* inv_freq,
                    float cosine_factor, float sine_factor, float* cosine, float* sine),
                   (x, heads, half, position, inv_freq, cosine_factor, sine_factor, cosine, sine))

}  // namespace sdpo
