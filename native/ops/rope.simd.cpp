// Half rotation of a token's heads; formula in rope.cpp. Cosine and sine are computed in double and rounded:
// within 0.51 units in the last place for angles below 2^20.
#include "ops/rope.h"

#include "core/simd.h"

namespace sdpo {
namespace SDPO_ISA {
namespace {

typedef float HalfVec __attribute__((vector_size(SDPO_VECTOR_BYTES / 2)));
typedef double VecD __attribute__((vector_size(SDPO_VECTOR_BYTES)));
typedef int64_t VecL __attribute__((vector_size(SDPO_VECTOR_BYTES)));

inline VecD select_d(VecL mask, VecD a, VecD b) { return (VecD)(((VecL)a & mask) | ((VecL)b & ~mask)); }

inline void put(float* to, VecD v) {
  const HalfVec narrow = __builtin_convertvector(v, HalfVec);
  std::memcpy(to, &narrow, sizeof narrow);
}

// Cody-Waite reduction to [-pi/4, pi/4], Taylor polynomials, then the quadrant.
void sincos(const float* angles, float* cosine, float* sine) {
  HalfVec narrow;
  std::memcpy(&narrow, angles, sizeof narrow);
  const VecD x = __builtin_convertvector(narrow, VecD);
  const VecD shifted = x * 0.63661977236758134308 + 6755399441055744.0;  // 1.5 * 2^52: rounds to an integer
  const VecD n = shifted - 6755399441055744.0;
  const VecD r = (x - n * 1.57079632673412561417) - n * 6.07710050650619224932e-11;
  const VecD q = r * r;
  VecD s = q * (-1.0 / 39916800) + 1.0 / 362880;
  s = s * q - 1.0 / 5040;
  s = s * q + 1.0 / 120;
  s = s * q - 1.0 / 6;
  s = s * q * r + r;
  VecD c = q * (1.0 / 479001600) - 1.0 / 3628800;
  c = c * q + 1.0 / 40320;
  c = c * q - 1.0 / 720;
  c = c * q + 1.0 / 24;
  c = c * q - 0.5;
  c = c * q + 1.0;
  const VecL quadrant = (VecL)shifted, odd = (quadrant & 1) == 1;
  const VecD sine_magnitude = select_d(odd, c, s), cosine_magnitude = select_d(odd, s, c);
  put(sine, (VecD)((VecL)sine_magnitude ^ ((quadrant & 2) << 62)));
  put(cosine, (VecD)((VecL)cosine_magnitude ^ (((quadrant + 1) & 2) << 62)));
}

}  // namespace

void rope_token(float* x, int64_t heads, int64_t half, float position, const float* inv_freq,
                float cosine_factor, float sine_factor, float* cosine, float* sine) {
  for (int64_t f = 0; f < half; f += kLanes) {
    float angles[kLanes];
    store(angles, load_any(inv_freq, false, f, lanes_at(f, half)) * position);
    for (int part = 0; part < kLanes; part += kLanes / 2)
      sincos(angles + part, cosine + f + part, sine + f + part);
    store(cosine + f, load(cosine + f) * cosine_factor);
    store(sine + f, load(sine + f) * sine_factor);
  }
  for (int64_t h = 0; h < heads; h++) {
    float *low = x + h * 2 * half, *high = low + half;
    for (int64_t f = 0; f < half; f += kLanes) {
      const int n = lanes_at(f, half);
      const Vec a = load_any(low, false, f, n), b = load_any(high, false, f, n);
      const Vec c = load(cosine + f), s = load(sine + f);
      store_any(low, false, f, a * c - b * s, n);
      store_any(high, false, f, b * c + a * s, n);
    }
  }
}

}  // namespace SDPO_ISA
}  // namespace sdpo
