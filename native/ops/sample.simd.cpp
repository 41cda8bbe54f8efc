// Maxima and weights of a row of logits, chunk by chunk; see sample.cpp.
#include "ops/sample.h"

#include "core/simd.h"

namespace sdpo {
namespace SDPO_ISA {
namespace {

inline int64_t chunk_end(int64_t begin, int64_t n) {
  return n - begin < kSampleChunk ? n : begin + kSampleChunk;
}

inline Vec logits_at(const float* logits, int64_t i, int lanes) {
  return lanes == kLanes ? load(logits + i) : load_part(logits + i, lanes, -__builtin_inff());
}

inline double wide_sum(Vec v) {
  double sum = 0;
  for (int i = 0; i < kLanes; i++) sum += double(v[i]);
  return sum;
}

}  // namespace

void chunk_maxima(const float* logits, int64_t n, float* maxima, bool* nan) {
  VecI odd = {};
  for (int64_t c = 0; c * kSampleChunk < n; c++) {
    const int64_t begin = c * kSampleChunk, end = chunk_end(begin, n);
    Vec most = splat(-__builtin_inff());
    for (int64_t i = begin; i < end; i += kLanes) {
      const int lanes = lanes_at(i, end);
      const Vec z = logits_at(logits, i, lanes);
      most = vmax(most, z);
      odd |= z != z;
    }
    maxima[c] = reduce_max(most);
  }
  *nan = false;
  for (int i = 0; i < kLanes; i++) *nan |= odd[i] != 0;
}

void chunk_weights(const float* logits, int64_t n, float most, float temperature, float* weights,
                   double* sums) {
  for (int64_t c = 0; c * kSampleChunk < n; c++) {
    const int64_t begin = c * kSampleChunk, end = chunk_end(begin, n);
    Vec sum = {};
    for (int64_t i = begin; i < end; i += kLanes) {
      const int lanes = lanes_at(i, end);
      const Vec z = logits_at(logits, i, lanes);
      const Vec w = vexp((z - most) / temperature);
      store_any(weights, false, i, w, lanes);
      sum += w;
    }
    sums[c] = wide_sum(sum);
  }
}

void cut_weights(const float* logits, int64_t n, float cut_logit, int32_t cut_id, float least_weight,
                 float* weights, double* sums) {
  VecI lane;
  for (int i = 0; i < kLanes; i++) lane[i] = i;
  for (int64_t c = 0; c * kSampleChunk < n; c++) {
    const int64_t begin = c * kSampleChunk, end = chunk_end(begin, n);
    Vec sum = {};
    for (int64_t i = begin; i < end; i += kLanes) {
      const int lanes = lanes_at(i, end);
      const Vec z = logits_at(logits, i, lanes), w = load_any(weights, false, i, lanes);
      const VecI stays = (z > cut_logit) | ((z == cut_logit) & (lane + int32_t(i) <= cut_id));
      const Vec kept = select(stays & (w >= least_weight), w, splat(0.f));
      store_any(weights, false, i, kept, lanes);
      sum += kept;
    }
    sums[c] = wide_sum(sum);
  }
}

}  // namespace SDPO_ISA
}  // namespace sdpo
