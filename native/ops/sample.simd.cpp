// Maxima and weights of a row of logits, chunk by chunk; see sample.cpp.
#include "ops/sample.h"

#include "core/simd.h"

namespace sdpo {
namespace SDPO_ISA {

void chunk_maxima(const float* logits, int64_t n, float* maxima, bool* nan) {
  VecI odd = {};
  for (int64_t c = 0; c * kSampleChunk < n; c++) {
    const int64_t begin = c * kSampleChunk, end = n - begin < kSampleChunk ? n : begin + kSampleChunk;
    Vec most = splat(-__builtin_inff());
    for (int64_t i = begin; i < end; i += kLanes) {
      const int lanes = lanes_at(i, end);
      const Vec z = lanes == kLanes ? load(logits + i) : load_part(logits + i, lanes, -__builtin_inff());
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
    const int64_t begin = c * kSampleChunk, end = n - begin < kSampleChunk ? n : begin + kSampleChunk;
    Vec sum = {};
    for (int64_t i = begin; i < end; i += kLanes) {
      const int lanes = lanes_at(i, end);
      const Vec z = lanes == kLanes ? load(logits + i) : load_part(logits + i, lanes, -__builtin_inff());
      const Vec w = vexp((z - most) / temperature);
      store_any(weights, false, i, w, lanes);
      sum += w;
    }
    sums[c] = 0;
    for (int i = 0; i < kLanes; i++) sums[c] += double(sum[i]);
  }
}

}  // namespace SDPO_ISA
}  // namespace sdpo
