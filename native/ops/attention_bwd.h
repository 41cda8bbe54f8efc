// The backward kernels, for one query head: a block of queries is prepared once, then meets the blocks of
// keys that it sees. Buffers are padded so that every row of E floats takes `wide`, a multiple of 16.
#pragma once
#include <cstdint>

#include "core/cpu.h"
#include "ops/attention_work.h"

namespace sdpo {

constexpr int64_t kBackwardQueries = 64, kBackwardKeys = 64;

// Up to kBackwardQueries queries, next to each other in the batch.
struct QueryBlock {
  const float *q, *out, *dout;  // query i at q + i * q_stride; out and dout likewise
  const float* lse;             // query i at lse[i * lse_stride]
  float* dq;                    // as q
  int64_t q_stride, lse_stride, count, width;
  int64_t position, window;  // position of the first query; 0: no window
  float scale;
  float* work;  // backward_work_floats(width)
};

static constexpr int64_t backward_work_floats(int64_t width) {
  return kBackwardQueries * (5 * round_up(width, 16) + 2 * kBackwardKeys + 2);
}

// Up to kBackwardKeys keys, rows of `wide` floats.
struct KeyBlock {
  const float *k, *v;
  float *dk, *dv;           // accumulated into
  int64_t count, position;  // position of the first key
};

SDPO_SIMD_FUNCTION(backward_begin, (const QueryBlock& queries), (queries))
SDPO_SIMD_FUNCTION(backward_step, (const QueryBlock& queries, const KeyBlock& keys), (queries, keys))
SDPO_SIMD_FUNCTION(backward_end, (const QueryBlock& queries), (queries))

}  // namespace sdpo
