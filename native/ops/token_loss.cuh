// Losses of the sampled token's log-probability on a GPU: a row's softmax, a scalar loss of it, and the
// gradient slope * ([v = token] - p) / temperature written over the vocabulary.
// The row is read once where it fits into the shared memory of one block, or of a cluster (sm_90), else
// twice by one block. A token id outside the vocabulary makes its row NaN. A row of weight 0 gives 0.
#pragma once
#include "ops/loss_rows.cuh"

namespace sdpo {

struct TokenCall {
  Logits logits, dlogits;
  int v;
  float scale, temperature;
  const int32_t* token_ids;
  const float *weights, *coefficients;
  float *token_loss, *logprobs, *entropy;  // entropy may be null
};

struct LossSlope {
  float loss, slope;  // slope = d loss / d logprob
};

// Writes the row's outputs (where `write`) and returns the gradient's slope. One thread.
template <class Loss>
DEV_INLINE float finish_token_row(const TokenCall& call, const Loss& loss, const RowSums& sums,
                                  float token_logit, int64_t row, bool write) {
  const RowSoftmax softmax(sums, call.scale);
  const float logprob = softmax.logprob(token_logit), weight = call.weights[row];
  const LossSlope term = loss(row, logprob, write);
  const bool known = unsigned(call.token_ids[row]) < unsigned(call.v);
  if (write) {
    call.token_loss[row] = !known ? NAN : weight == 0 ? 0 : weight * term.loss;
    call.logprobs[row] = logprob;
    if (call.entropy) call.entropy[row] = known ? softmax.entropy() : NAN;
  }
  if (!known) return NAN;
  return weight == 0 ? 0 : weight * call.coefficients[row] * term.slope / call.temperature;
}

// NaN where the id is none; to be read before the gradient goes over the logits.
DEV_INLINE float token_logit_of(const TokenCall& call, int64_t row) {
  const int token = call.token_ids[row];
  return unsigned(token) < unsigned(call.v) ? read_logit(call.logits, row, call.v, token) : NAN;
}

template <class Read>
DEV_INLINE RowSums token_row_sums(const Slice& slice, float scale, Read read) {
  RowSums sums;
  for (int group = threadIdx.x; group < slice.groups; group += blockDim.x) {
    float z[kGroup];
    read(group, z);
    sums.add(z, scale);
  }
  return sums;
}

template <class Read>
DEV_INLINE void write_token_gradient(const TokenCall& call, const Slice& slice, const RowSums& sums,
                                     float slope, int token, Read read) {
  const RowSoftmax softmax(sums, call.scale);
  for (int group = threadIdx.x; group < slice.groups; group += blockDim.x) {
    float z[kGroup], out[kGroup] = {};
    if (slope != 0) {
      read(group, z);
      const int column = slice.first + kGroup * group;
      for (int j = 0; j < kGroup; j++) {
        const float p = exp2_fast(softmax.log2_of(z[j]));
        out[j] = slope * ((column + j == token ? 1.f : 0.f) - p);
      }
    }
    write_group(call.dlogits, slice, group, out);
  }
}

template <class T, class Loss>
__global__ void __launch_bounds__(kRowThreads, 3)
    token_loss_resident(TokenCall call, Loss loss, RowPlan plan) {
  const Team team = Team::of_cluster(plan.blocks);
  const int64_t row = blockIdx.x / plan.blocks;
  Smem smem;
  RowSums* all = smem.take<RowSums>(uint32_t(plan.blocks) * blockDim.x / 32);
  float* slope = smem.take<float>(1);
  T* logits = smem.take<T>(uint32_t(plan.groups) * kGroup, 128);
  uint64_t* arrived = smem.take<uint64_t>(1);
  float token_logit = 0;
  if (threadIdx.x == 0) token_logit = token_logit_of(call, row);
  const Slice slice = slice_of(row, call.v, team.rank, team.blocks);
#if DEV_HAS_CLUSTER
  if (plan.bulk && threadIdx.x == 0) mbar_init(arrived, 1);
#endif
  team.sync();  // the barrier is there, and so are the other blocks
  load_slice(logits, call.logits, slice, plan.bulk, arrived);
#if DEV_HAS_CLUSTER
  if (plan.bulk) mbar_wait(arrived, 0);
#endif
  __syncthreads();
  const auto read = [&](int group, float(&z)[kGroup]) { load_group(logits + kGroup * group, z); };
  const RowSums sums = merge_team(token_row_sums(slice, call.scale, read), all, team, call.scale);
  if (threadIdx.x == 0) *slope = finish_token_row(call, loss, sums, token_logit, row, team.rank == 0);
  if (!call.dlogits.data) return;
  __syncthreads();
  write_token_gradient(call, slice, sums, *slope, call.token_ids[row], read);
}

// One block a row, which is read again for its gradient.
template <class Loss>
__global__ void __launch_bounds__(kRowThreads) token_loss_twice(TokenCall call, Loss loss) {
  SHARED(RowSums, warps, kRowThreads / 32);
  SHARED(float, slope, 1);
  const int64_t row = blockIdx.x;
  const Slice slice = slice_of(row, call.v, 0, 1);
  float token_logit = 0;
  if (threadIdx.x == 0) token_logit = token_logit_of(call, row);
  const auto read = [&](int group, float(&z)[kGroup]) { read_group(call.logits, slice, group, z); };
  const RowSums sums = merge_team(token_row_sums(slice, call.scale, read), &warps[0], Team{0, 1}, call.scale);
  if (threadIdx.x == 0) slope[0] = finish_token_row(call, loss, sums, token_logit, row, true);
  if (!call.dlogits.data) return;
  __syncthreads();
  write_token_gradient(call, slice, sums, slope[0], call.token_ids[row], read);
}

template <class T, class Loss>
void launch_token_resident(const GpuCall& call, const TokenCall& rows, const Loss& loss, int64_t n,
                           const RowPlan& plan, uint64_t bytes) {
  launch_cluster(token_loss_resident<T, Loss>, dim3(unsigned(n * plan.blocks)), dim3(plan.threads), bytes,
                 plan.blocks, call.stream(), rows, loss, plan);
}

template <class Loss>
void launch_token_loss(const GpuCall& call, const TokenCall& rows, const Loss& loss, int64_t n) {
  if (n == 0) return;
  const uint64_t group_bytes = kGroup * (rows.logits.is_bf16 ? 2 : 4);
  const uint64_t extra = 8 * kRowThreads / 32 * sizeof(RowSums) + 512;
  const RowPlan plan = plan_rows(call.properties(), rows.v, group_bytes, extra);
  const uint64_t bytes = plan.groups * group_bytes + extra;
  if (!plan.blocks)
    launch(token_loss_twice<Loss>, dim3(unsigned(n)), dim3(kRowThreads), 0, call.stream(), rows, loss);
  else if (rows.logits.is_bf16)
    launch_token_resident<bf16>(call, rows, loss, n, plan, bytes);
  else
    launch_token_resident<float>(call, rows, loss, n, plan, bytes);
}

}  // namespace sdpo
