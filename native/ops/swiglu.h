// Element ranges of SwiGLU, one per instruction set.
#pragma once
#include <cstdint>

#include "core/cpu.h"

namespace sdpo {

SDPO_SIMD_FUNCTION(swiglu_fwd_range, (const float* gate, const float* up, float* y, int64_t n),
                   (gate, up, y, n))
SDPO_SIMD_FUNCTION(swiglu_bwd_range,
                   (const float* gate, const float* up, const float* dy, float* dgate, float* dup, int64_t n),
                   (gate, up, dy, dgate, dup, n))

}  // namespace sdpo
