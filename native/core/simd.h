// Portable vectors for `*.simd.cpp` files. CMake compiles each such file once per instruction set, with
// SDPO_ISA naming the namespace and SDPO_VECTOR_BYTES the register width; put the code in namespace
// sdpo::SDPO_ISA, helpers in an anonymous namespace inside it, and use no inline function of the standard
// library there: the linker might keep the AVX-512 copy of it for everybody.
#pragma once
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#ifndef SDPO_ISA
#define SDPO_ISA baseline
#define SDPO_VECTOR_BYTES 16
#endif

#if SDPO_VECTOR_BYTES > 16
#include <immintrin.h>
#endif

// Four lanes of two 4-lane vectors of one type: 0..3 are a's, 4..7 are b's.
#if defined(__clang__)
#define SDPO_SHUFFLE4(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define SDPO_SHUFFLE4(a, b, i, j, k, l) \
  __builtin_shuffle(a, b, (int32_t __attribute__((vector_size(16)))){i, j, k, l})
#endif

namespace sdpo {
namespace SDPO_ISA {
namespace {

constexpr int kLanes = SDPO_VECTOR_BYTES / 4;
typedef float Vec __attribute__((vector_size(SDPO_VECTOR_BYTES)));
typedef int32_t VecI __attribute__((vector_size(SDPO_VECTOR_BYTES)));
typedef uint32_t VecU __attribute__((vector_size(SDPO_VECTOR_BYTES)));

inline Vec splat(float x) { return x - Vec{}; }
inline VecI splat_i(int32_t x) { return x - VecI{}; }

inline Vec load(const float* p) {
  Vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline void store(float* p, Vec v) { std::memcpy(p, &v, sizeof v); }

// The first n (1..kLanes) lanes; the others are `fill`.
#if defined(__AVX512F__)
inline Vec load_part(const float* p, int n, float fill) {
  return (Vec)_mm512_mask_loadu_ps((__m512)splat(fill), __mmask16((1u << n) - 1), p);
}
inline void store_part(float* p, Vec v, int n) {
  _mm512_mask_storeu_ps(p, __mmask16((1u << n) - 1), (__m512)v);
}
#elif defined(__AVX2__)
inline VecI first_lanes(int n) { return VecI{0, 1, 2, 3, 4, 5, 6, 7} < splat_i(n); }
inline Vec load_part(const float* p, int n, float fill) {
  const __m256i mask = (__m256i)first_lanes(n);
  return (Vec)_mm256_blendv_ps((__m256)splat(fill), _mm256_maskload_ps(p, mask), (__m256)mask);
}
inline void store_part(float* p, Vec v, int n) { _mm256_maskstore_ps(p, (__m256i)first_lanes(n), (__m256)v); }
#else
inline Vec load_part(const float* p, int n, float fill) {
  Vec v = splat(fill);
  for (int i = 0; i < n; i++) v[i] = p[i];
  return v;
}
inline void store_part(float* p, Vec v, int n) {
  for (int i = 0; i < n; i++) p[i] = v[i];
}
#endif

// GCC widens a vector of 16-bit integers in halves; the instruction does it in one. (The masked form: GCC 12
// warns of an uninitialised variable inside the other.)
inline Vec load_bf16(const uint16_t* p) {
#if SDPO_VECTOR_BYTES == 64
  return (Vec)((VecU)_mm512_maskz_cvtepu16_epi32(0xffff, _mm256_loadu_si256((const __m256i*)p)) << 16);
#elif SDPO_VECTOR_BYTES == 32
  return (Vec)((VecU)_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)) << 16);
#else
  typedef uint16_t Half __attribute__((vector_size(SDPO_VECTOR_BYTES / 2)));
  Half h;
  std::memcpy(&h, p, sizeof h);
  const VecU wide = __builtin_convertvector(h, VecU) << 16;
  return (Vec)wide;
#endif
}

// Rounds to nearest even; NaN stays NaN.
inline void store_bf16(uint16_t* p, Vec v) {
  typedef uint16_t Half __attribute__((vector_size(SDPO_VECTOR_BYTES / 2)));
  const VecU bits = (VecU)v, top = bits >> 16;
  const VecU nan = (VecU)(v != v);
  const VecU rounded = ((bits + 0x7fffu + (top & 1u)) >> 16 & ~nan) | ((top | 0x40u) & nan);
  const Half h = __builtin_convertvector(rounded, Half);
  std::memcpy(p, &h, sizeof h);
}

// How many lanes a loop over [0, n) uses at i.
inline int lanes_at(int64_t i, int64_t n) { return n - i < kLanes ? int(n - i) : kLanes; }

// n (1..kLanes) elements from index i of a float32 or bfloat16 array; the other lanes are 0.
inline Vec load_any(const void* p, bool bf16, int64_t i, int n) {
  if (!bf16) {
    const float* f = static_cast<const float*>(p) + i;
    return n == kLanes ? load(f) : load_part(f, n, 0.f);
  }
  const uint16_t* h = static_cast<const uint16_t*>(p) + i;
  if (n == kLanes) return load_bf16(h);
  uint16_t part[kLanes] = {};
  std::memcpy(part, h, size_t(n) * 2);
  return load_bf16(part);
}
inline void store_any(void* p, bool bf16, int64_t i, Vec v, int n) {
  if (!bf16) {
    float* f = static_cast<float*>(p) + i;
    return n == kLanes ? store(f, v) : store_part(f, v, n);
  }
  uint16_t* h = static_cast<uint16_t*>(p) + i;
  if (n == kLanes) return store_bf16(h, v);
  uint16_t part[kLanes];
  store_bf16(part, v);
  std::memcpy(h, part, size_t(n) * 2);
}

inline Vec vsqrt(Vec x) {
  for (int i = 0; i < kLanes; i++) x[i] = __builtin_sqrtf(x[i]);
  return x;
}

inline Vec select(VecI mask, Vec a, Vec b) { return (Vec)(((VecI)a & mask) | ((VecI)b & ~mask)); }
inline Vec vmax(Vec a, Vec b) { return a > b ? a : b; }  // b where either is NaN
inline Vec vmin(Vec a, Vec b) { return a < b ? a : b; }

inline float reduce_add(Vec v) {
  typedef float Four __attribute__((vector_size(16)));
  Four part[kLanes / 4];
  std::memcpy(part, &v, sizeof v);
  for (int i = 1; i < kLanes / 4; i++) part[0] += part[i];
  return (part[0][0] + part[0][1]) + (part[0][2] + part[0][3]);
}
inline float reduce_max(Vec v) {
  float m = v[0];
  for (int i = 1; i < kLanes; i++) m = v[i] > m ? v[i] : m;
  return m;
}

// exp(x) / 2^n, n the integer nearest to x / log 2: Cody-Waite reduction, Cephes' degree-6 polynomial.
inline Vec exp_mantissa(Vec x, Vec n) {
  Vec r = x - n * splat(0.693359375f);
  r = r - n * splat(-2.12194440e-4f);
  Vec p = splat(1.9875691500e-4f);
  p = p * r + splat(1.3981999507e-3f);
  p = p * r + splat(8.3334519073e-3f);
  p = p * r + splat(4.1665795894e-2f);
  p = p * r + splat(1.6666665459e-1f);
  p = p * r + splat(5.0000001201e-1f);
  return p * (r * r) + r + splat(1.f);
}

// exp(x): within 2 ulp for x in [-87.3, 88.7]; below, 0 (results under the smallest normal number flush to
// zero); above, inf; NaN stays NaN.
inline Vec vexp(Vec x) {
  const Vec clamped = vmin(vmax(x, splat(-87.33654f)), splat(88.72283f));
  const Vec n = clamped * splat(1.44269504f) + splat(12582912.f) - splat(12582912.f);
  // 2^n in two factors: n may be 128.
  const VecI k = __builtin_convertvector(n, VecI);
  const VecI half = k >> 1;
  const Vec a = (Vec)((half + 127) << 23), b = (Vec)((k - half + 127) << 23);
  Vec y = exp_mantissa(clamped, n) * a * b;
  y = select(x < splat(-87.33654f), splat(0.f), y);
  y = select(x > splat(88.72283f), splat(__builtin_inff()), y);
  return select(x != x, x, y);
}

// exp(x) for x <= 0, within 2 ulp for x >= -87.3; 0 from -87.7 down, for -inf too; NaN stays NaN. Adding
// 1.5 * 2^23 + 127 rounds x / log 2 to n and leaves n + 127, the exponent bits of 2^n, at the bottom.
inline Vec vexp_below(Vec x) {
  x = vmax(splat(-88.f), x);
  const Vec shifted = x * splat(1.44269504f) + splat(12583039.f);
  return exp_mantissa(x, shifted - splat(12583039.f)) * (Vec)((VecI)shifted << 23);
}

// log(x) for x >= the smallest normal number, within 2 ulp; 0 and denormals give log of the smallest normal
// number (about -87.3): callers multiply by a mass that is then 0. inf and NaN are not treated.
inline Vec vlog(Vec x) {
  x = vmax(x, splat(1.17549435e-38f));
  const VecI bits = (VecI)x;
  VecI e = ((bits >> 23) & 255) - 126;
  Vec m = (Vec)((bits & 0x007fffff) | 0x3f000000);  // [0.5, 1)
  const VecI small = m < splat(0.707106781f);
  e = e + small;  // small is -1 in the lanes where it holds
  m = m + select(small, m, splat(0.f)) - splat(1.f);
  const Vec z = m * m;
  Vec p = splat(7.0376836292e-2f);
  p = p * m + splat(-1.1514610310e-1f);
  p = p * m + splat(1.1676998740e-1f);
  p = p * m + splat(-1.2420140846e-1f);
  p = p * m + splat(1.4249322787e-1f);
  p = p * m + splat(-1.6668057665e-1f);
  p = p * m + splat(2.0000714765e-1f);
  p = p * m + splat(-2.4999993993e-1f);
  p = p * m + splat(3.3333331174e-1f);
  const Vec ef = __builtin_convertvector(e, Vec);
  Vec y = m * z * p;
  y = y + ef * splat(-2.12194440e-4f);
  y = y - splat(0.5f) * z;
  return m + y + ef * splat(0.693359375f);
}

}  // namespace
}  // namespace SDPO_ISA
}  // namespace sdpo
