// row_statistics on a GPU (outputs: row_statistics.cpp): one block a row, every logit read once.
// A token id outside the vocabulary makes its row NaN.
#include "ops/row_statistics.cuh"

namespace sdpo {
namespace {

constexpr int kThreads = 512, kAhead = 4;  // kAhead groups are on their way at a time

__global__ void __launch_bounds__(kThreads) row_statistics(StatisticsCall call) {
  SHARED(RowSums, warps, kThreads / 32);
  const int64_t row = blockIdx.x;
  const Slice slice = slice_of(row, call.v, 0, 1);
  RowSums mine;
  for (int group = threadIdx.x; group < slice.groups; group += kAhead * blockDim.x) {
    float z[kAhead][kGroup];
    for (int i = 0; i < kAhead; i++) {
      const int at = group + i * int(blockDim.x);
      if (at < slice.groups)
        read_group(call.logits, slice, at, z[i]);
      else
        for (int j = 0; j < kGroup; j++) z[i][j] = -INFINITY;
    }
    for (int i = 0; i < kAhead; i++) mine.add(z[i], call.scale);
  }
  const RowSums sums = merge_team(mine, &warps[0], Team{0, 1}, call.scale);
  if (threadIdx.x) return;
  const RowSoftmax softmax(sums, call.scale);
  const int token = call.token_ids[row];
  const bool known = unsigned(token) < unsigned(call.v);
  call.logprobs[row] = known ? softmax.logprob(read_logit(call.logits, row, call.v, token)) : NAN;
  call.lse[row] = known ? softmax.lse() : NAN;
  call.entropy[row] = known ? softmax.entropy() : NAN;
  call.max[row] = known ? sums.max : NAN;
}

}  // namespace

void launch_statistics(const GpuCall& call, const StatisticsCall& rows, int64_t n) {
  if (n == 0) return;
  const int threads = std::min(kThreads, (most_groups(rows.v, 1) + 31) / 32 * 32);
  launch(row_statistics, dim3(unsigned(n)), dim3(threads), 0, call.stream(), rows);
}

namespace {

void launch_row_statistics(const GpuCall& call) {
  StatisticsCall rows{};
  rows.logits = logits_of(call.in(0));
  rows.v = int(call.in(0).shape[1]);
  rows.scale = float(kLog2e / call.number(0));
  rows.token_ids = call.in_as<int32_t>(1);
  rows.logprobs = call.out_as<float>(0);
  rows.lse = call.out_as<float>(1);
  rows.entropy = call.out_as<float>(2);
  rows.max = call.out_as<float>(3);
  launch_statistics(call, rows, call.in(0).shape[0]);
}

SDPO_KERNEL(row_statistics, launch_row_statistics);

}  // namespace
}  // namespace sdpo
