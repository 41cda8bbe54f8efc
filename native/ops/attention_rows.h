// The forward core that attention_fwd and attention_paged share: the queries of a block of tokens against
// keys that lie in pieces.
//   s_j = scale q k_j,  out = sum_j exp(s_j - lse) v_j,  lse = log sum_j exp(s_j)
// Online softmax over blocks of kKeyBlock keys that start at multiples of kKeyBlock in the sequence of keys.
// A row's bits depend on its own query, keys and values: not on the other rows, nor on the cut into pieces.
#pragma once
#include <cstdint>

#include "core/cpu.h"
#include "ops/attention_work.h"

namespace sdpo {

constexpr int64_t kKeyBlock = 64, kQueryRows = 96;

// Tokens of a block of queries: together with the group of heads about kQueryRows rows.
static constexpr int64_t query_tokens(int64_t group) { return group < kQueryRows ? kQueryRows / group : 1; }

// `count` tokens of a sequence, in rows row, row + 1, ... of the keys and values.
struct KeyPiece {
  int64_t row, count;
};

// Tokens that follow one another in q, and kv heads that follow one another, each with its `group` of query
// heads. Rows of q and out lie q_stride apart, of lse lse_stride, of k and v key_stride.
struct AttentionRows {
  const float* q;  // the first token's first query head; out and lse likewise
  float* out;
  float* lse;  // null: not wanted
  int64_t q_stride, lse_stride;
  int64_t tokens, kv_heads, group, width;
  const int32_t* visible;  // token i sees the first visible[i] >= 1 keys ...
  int64_t window;          // ... and of these the last `window`, unless 0
  float scale;
  const void *k, *v;  // row 0 of the first kv head
  bool bf16;          // k and v are bfloat16, else float32
  int64_t key_stride;
  const KeyPiece* pieces;  // the sequence of keys
  float* work;             // attention_work_floats
};

static constexpr int64_t attention_work_floats(int64_t tokens, int64_t kv_heads, int64_t group,
                                               int64_t width) {
  const int64_t rows = tokens * group, padded = round_up(rows, 16), wide = round_up(width, 16);
  return 2 * kKeyBlock * wide + kKeyBlock * padded + kv_heads * ((width + 5) * padded + rows * wide);
}

SDPO_SIMD_FUNCTION(attend, (const AttentionRows& task), (task))

}  // namespace sdpo
