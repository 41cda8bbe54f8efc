// Losses that are functions of the sampled token's log-probability: softmax statistics of each row, a scalar
// loss of them, and its gradient over the vocabulary, dL/dz_v = slope * ([v = token] - p_v) / temperature.
#pragma once
#include <functional>

#include "ops/loss_support.h"

namespace sdpo {

struct TokenTerm {
  double loss, slope;  // slope = d loss / d logprob
};

// Pointers to the first of some rows; outputs that are null are not wanted.
struct TokenRows {
  int64_t rows;
  LogitMatrix logits, dlogits;
  double temperature;
  const int32_t* token_ids;
  const float *weights, *coefficients;  // null with loss
  float *token_loss, *logprobs, *lse, *entropy, *max;
};

using TokenLoss = std::function<TokenTerm(int64_t row, double logprob)>;

uint64_t token_slot_bytes(int64_t v);
// token_loss = weights * loss; dlogits = coefficients * d token_loss / d logits. A row of weight 0 gives 0.
void token_rows(const TokenRows& rows, const TokenLoss& loss, void* scratch, uint64_t scratch_bytes);

}  // namespace sdpo
