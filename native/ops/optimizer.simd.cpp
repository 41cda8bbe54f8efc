// AdamW and the gradient's norm over a range of elements; formulas in optimizer.cpp.
#include "ops/optimizer.h"

#include "core/simd.h"

namespace sdpo {
namespace SDPO_ISA {
namespace {

typedef float HalfVec __attribute__((vector_size(SDPO_VECTOR_BYTES / 2)));
typedef double VecD __attribute__((vector_size(SDPO_VECTOR_BYTES)));

inline Vec get(const FloatArray& a, int64_t i, int n) { return load_any(a.data, a.bf16, i, n); }
inline void put(const FloatArray& a, int64_t i, Vec v, int n) { store_any(a.data, a.bf16, i, v, n); }

inline VecD squares(const float* x) {
  HalfVec half;
  std::memcpy(&half, x, sizeof half);
  const VecD wide = __builtin_convertvector(half, VecD);
  return wide * wide;
}

}  // namespace

void adamw_range(const AdamwStep& a, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i += kLanes) {
    const int n = lanes_at(i, end);
    const Vec g = load_any(a.gradient, false, i, n) * a.gradient_scale;
    const Vec m = get(a.first, i, n) * a.beta1 + g * a.rest1;
    const Vec v = get(a.second, i, n) * a.beta2 + g * g * a.rest2;
    put(a.first, i, m, n);
    put(a.second, i, v, n);
    Vec theta = (a.master ? load_any(a.master, false, i, n) : get(a.parameter, i, n)) * a.decay;
    theta -= m * a.rate / (vsqrt(v) * a.second_scale + a.epsilon);
    put(a.parameter, i, theta, n);
    if (a.master)
      store_any(a.master, false, i, theta, n);
    else
      theta = get(a.parameter, i, n);
    if (a.ema.data) put(a.ema, i, get(a.ema, i, n) * (1.f - a.ema_rate) + theta * a.ema_rate, n);
  }
}

void squares_range(const float* x, int64_t n, double* sums) {
  VecD low = {}, high = {};
  VecI unfinished = {};
  for (int64_t i = 0; i < n; i += kLanes) {
    float part[kLanes];
    const float* p = x + i;
    const int lanes = lanes_at(i, n);
    if (lanes < kLanes) {
      store(part, load_part(p, lanes, 0.f));
      p = part;
    }
    low += squares(p);
    high += squares(p + kLanes / 2);
    unfinished -= ((VecI)load(p) & 0x7f800000) == 0x7f800000;
  }
  sums[0] = sums[1] = 0;
  low += high;
  for (int i = 0; i < kLanes / 2; i++) sums[0] += low[i];
  for (int i = 0; i < kLanes; i++) sums[1] += unfinished[i];
}

}  // namespace SDPO_ISA
}  // namespace sdpo
