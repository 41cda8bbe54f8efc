// The row kernel of distill_loss and linear_distill_loss, and what both declare.
#pragma once
#include "ops/distill_options.h"
#include "ops/loss_support.h"
#include "ops/schema.h"

namespace sdpo {

// Pointers to the first of some rows; optional ones may be null.
struct DistillRows {
  int64_t rows;
  LogitMatrix student, teacher, initial, dlogits;
  const int32_t* token_ids;
  const float *weights, *coefficients, *old_logprobs, *advantages;
  float* out[kDistillOutputs];
};

uint64_t distill_slot_bytes(int64_t v, const DistillOptions& options);
void distill_rows(const DistillRows& rows, const DistillOptions& options, void* scratch,
                  uint64_t scratch_bytes);

void distill_attributes(OpSchema& op);
void distill_outputs(OpSchema& op);

}  // namespace sdpo
