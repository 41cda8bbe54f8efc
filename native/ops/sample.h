// Passes of the sampler over a row of logits, one per instruction set.
#pragma once
#include <cstdint>

#include "core/cpu.h"

namespace sdpo {

constexpr int64_t kSampleChunk = 128;

// The largest logit of each chunk; *nan is set where a logit is NaN.
SDPO_SIMD_FUNCTION(chunk_maxima, (const float* logits, int64_t n, float* maxima, bool* nan),
                   (logits, n, maxima, nan))

// weights[i] = exp((logits[i] - most) / temperature), and the sum of each chunk.
SDPO_SIMD_FUNCTION(chunk_weights,
                   (const float* logits, int64_t n, float most, float temperature, float* weights,
                    double* sums),
                   (logits, n, most, temperature, weights, sums))

}  // namespace sdpo
