// add, scale and lerp of a range of elements.
#include "ops/add.h"

#include "core/simd.h"

namespace sdpo {
namespace SDPO_ISA {
namespace {}  // namespace

void add_range(float* x, const float* y, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int lanes = lanes_at(i, n);
    store_any(x, false, i, load_any(x, false, i, lanes) + load_any(y, false, i, lanes), lanes);
  }
}

void scale_range(float* x, float factor, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int lanes = lanes_at(i, n);
    store_any(x, false, i, load_any(x, false, i, lanes) * factor, lanes);
  }
}

void lerp_range(void* x, bool x_bf16, const void* y, bool y_bf16, float rate, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i += kLanes) {
    const int lanes = lanes_at(i, end);
    const Vec a = load_any(x, x_bf16, i, lanes), b = load_any(y, y_bf16, i, lanes);
    store_any(x, x_bf16, i, a * (1.f - rate) + b * rate, lanes);
  }
}

}  // namespace SDPO_ISA
}  // namespace sdpo
