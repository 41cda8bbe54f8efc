// The loss of a token in policy_loss and linear_policy_loss, and what both declare.
#pragma once
#include "ops/policy_options.h"
#include "ops/schema.h"
#include "ops/token_rows.h"

namespace sdpo {

// Pointers to the first of some rows.
struct PolicyRows {
  const float *old_logprobs, *advantages, *reference_logprobs;  // the last may be null
  float *ratio, *kl;
  int32_t* clipped;
};

TokenTerm policy_row(const PolicyRows& rows, const PolicyOptions& options, int64_t row, double logprob);

void policy_inputs(OpSchema& op);  // the inputs [N], then the outputs [N]
void policy_attributes(OpSchema& op);

// Fills in what policy_inputs declares; `first` is the index of its first input.
void policy_bind(const Call& call, int first, TokenRows& tokens, PolicyRows& rows);

}  // namespace sdpo
