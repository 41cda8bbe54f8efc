// Passes over one row of logits that the loss ops are made of, vectorised for each instruction set.
// Everything is relative to the row's largest logit: x = (z - max) * inv_temperature, e = exp(x).
// Long sums are kept in double every kSumBlock elements, in a fixed order: a row's result depends on nothing
// but the row.
#pragma once
#include <cstdint>

#include "core/cpu.h"

namespace sdpo {

constexpr int64_t kMaximaBlock = 64;

// A row of logits and where its softmax is measured from.
struct LogitRow {
  const float* z;
  int64_t n;
  float max;
  float inv_temperature;
};

// Positions left out of ExpSums::sum (ascending), and where their exponentials go.
struct LeftOut {
  const int32_t* ids;
  int64_t count;
  float* exponentials;
};

struct ExpSums {
  double sum;       // of e, without the positions left out
  double weighted;  // of e * x, over all
};

enum class Divergence : int32_t { Forward, Reverse, Jsd, ClippedReverse };

// Buckets with student mass p = a * a_scale and teacher mass t = b * b_scale, and their log ratio
// r = log t - log p = (y - y_max - (x - x_max)) * inv_temperature + shift.
struct BucketRow {
  const float *a, *b, *x, *y;
  int64_t n;
  float a_scale, b_scale, x_max, y_max, inv_temperature, shift;
  Divergence kind;
  float alpha, clip;
};

struct BucketSums {
  double loss;         // the divergence
  double kl;           // KL(P || T) over the buckets
  double coefficient;  // sum of c
};

// The largest element of each block of kMaximaBlock (the last may be shorter) and of the row; NaN is ignored.
SDPO_SIMD_FUNCTION(block_maxima, (const float* z, int64_t n, float* maxima, float* max), (z, n, maxima, max))

// The positions of the elements >= threshold of one block, ascending. found holds kMaximaBlock.
SDPO_SIMD_FUNCTION(find_at_least,
                   (const float* z, int64_t n, float threshold, int32_t* found, int64_t* count),
                   (z, n, threshold, found, count))

// e may be the row's own memory, or null where only the sums are wanted.
SDPO_SIMD_FUNCTION(exponentials, (const LogitRow& row, const LeftOut& left_out, float* e, ExpSums* sums),
                   (row, left_out, e, sums))

// c = dL/dlog P of each bucket, and the sums. c may be b's memory.
SDPO_SIMD_FUNCTION(divergence, (const BucketRow& row, float* c, BucketSums* sums), (row, c, sums))

// out = c * c_factor - e * e_factor; c may be null for 0, out may be any of them.
SDPO_SIMD_FUNCTION(combine,
                   (const float* c, float c_factor, const float* e, float e_factor, int64_t n, float* out),
                   (c, c_factor, e, e_factor, n, out))

// out = (1 - rate) * a + rate * b for 0 < rate < 1; equal infinities stay (out may be a or b).
SDPO_SIMD_FUNCTION(mix_rows, (const float* a, const float* b, float rate, int64_t n, float* out),
                   (a, b, rate, n, out))

SDPO_SIMD_FUNCTION(widen_row, (const uint16_t* bf16, int64_t n, float* out), (bf16, n, out))

}  // namespace sdpo
