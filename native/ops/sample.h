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

// Sets to 0 the weights below least_weight and of the tokens that come after (cut_logit, cut_id) in the order
// of falling logits, then rising ids; and the sum of each chunk.
SDPO_SIMD_FUNCTION(cut_weights,
                   (const float* logits, int64_t n, float cut_logit, int32_t cut_id, float least_weight,
                    float* weights, double* sums),
                   (logits, n, cut_logit, cut_id, least_weight, weights, sums))

}  // namespace sdpo
