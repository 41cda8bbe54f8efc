// RMSNorm of rows, forward and backward; formulas in rmsnorm.cpp. A row's sums depend on its length alone.
#include "ops/rmsnorm.h"

#include "core/simd.h"

namespace sdpo {
namespace SDPO_ISA {
namespace {

float sum_of_squares(const float* x, int64_t d) {
  Vec s[4] = {};
  int64_t j = 0;
  for (; j + 4 * kLanes <= d; j += 4 * kLanes) {
    for (int u = 0; u < 4; u++) {
      const Vec v = load(x + j + u * kLanes);
      s[u] += v * v;
    }
  }
  for (; j < d; j += kLanes) {
    const Vec v = load_any(x, false, j, lanes_at(j, d));
    s[0] += v * v;
  }
  return reduce_add((s[0] + s[1]) + (s[2] + s[3]));
}

float weighted_dot(const RmsnormRows& a, const float* x, const float* dy) {
  Vec s = {};
  for (int64_t j = 0; j < a.d; j += kLanes) {
    const int n = lanes_at(j, a.d);
    s += load_any(dy, false, j, n) * load_any(a.weight, a.weight_bf16, j, n) * load_any(x, false, j, n);
  }
  return reduce_add(s);
}

}  // namespace

void rmsnorm_fwd_rows(const RmsnormRows& a) {
  for (int64_t t = 0; t < a.rows; t++) {
    const float* x = a.x + t * a.d;
    const float rstd = 1.f / __builtin_sqrtf(sum_of_squares(x, a.d) / float(a.d) + a.eps);
    a.rstd[t] = rstd;
    for (int64_t j = 0; j < a.d; j += kLanes) {
      const int n = lanes_at(j, a.d);
      const Vec w = load_any(a.weight, a.weight_bf16, j, n);
      store_any(a.y + t * a.d, false, j, load_any(x, false, j, n) * rstd * w, n);
    }
  }
}

void rmsnorm_bwd_rows(const RmsnormRows& a) {
  std::memset(a.dweight, 0, size_t(a.d) * 4);
  for (int64_t t = 0; t < a.rows; t++) {
    const float *x = a.x + t * a.d, *dy = a.dy + t * a.d;
    float* dx = a.dx + t * a.d;
    const float rstd = a.rstd[t];
    const float pull = weighted_dot(a, x, dy) * rstd * rstd * rstd / float(a.d);
    for (int64_t j = 0; j < a.d; j += kLanes) {
      const int n = lanes_at(j, a.d);
      const Vec xv = load_any(x, false, j, n), dyv = load_any(dy, false, j, n);
      Vec g = dyv * load_any(a.weight, a.weight_bf16, j, n) * rstd - xv * pull;
      if (a.accumulate) g += load_any(dx, false, j, n);
      store_any(dx, false, j, g, n);
      store_any(a.dweight, false, j, load_any(a.dweight, false, j, n) + dyv * xv * rstd, n);
    }
  }
}

}  // namespace SDPO_ISA
}  // namespace sdpo
