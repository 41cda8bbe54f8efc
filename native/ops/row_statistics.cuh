// The launcher of row_statistics' kernel, for its op and for linear_statistics.
#pragma once
#include "ops/loss_rows.cuh"

namespace sdpo {

struct StatisticsCall {
  Logits logits;
  int v;
  float scale;
  const int32_t* token_ids;
  float *logprobs, *lse, *entropy, *max;
};

void launch_statistics(const GpuCall& call, const StatisticsCall& rows, int64_t n);

}  // namespace sdpo
