// SwiGLU of a range of elements; formulas in swiglu.cpp.
#include "ops/swiglu.h"

#include "core/simd.h"

namespace sdpo {
namespace SDPO_ISA {
namespace {

inline Vec sigmoid(Vec x) { return splat(1.f) / (splat(1.f) + vexp(-x)); }

}  // namespace

void swiglu_fwd_range(const float* gate, const float* up, float* y, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int lanes = lanes_at(i, n);
    const Vec g = load_any(gate, false, i, lanes);
    store_any(y, false, i, g * sigmoid(g) * load_any(up, false, i, lanes), lanes);
  }
}

void swiglu_bwd_range(const float* gate, const float* up, const float* dy, float* dgate, float* dup,
                      int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int lanes = lanes_at(i, n);
    const Vec g = load_any(gate, false, i, lanes), u = load_any(up, false, i, lanes);
    const Vec d = load_any(dy, false, i, lanes), s = sigmoid(g);
    store_any(dup, false, i, d * g * s, lanes);
    store_any(dgate, false, i, d * u * s * (splat(1.f) + g * (splat(1.f) - s)), lanes);
  }
}

}  // namespace SDPO_ISA
}  // namespace sdpo
