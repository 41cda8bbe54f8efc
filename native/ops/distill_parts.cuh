// A row pair in parts, one block each, with sums in scratch memory between kernels: for devices without
// clusters, rows that do not fit into shared memory, and the renormalised top K. A launch takes few enough
// rows that what the first kernel read is still in the L2 cache for the next ones.
#pragma once
#include "ops/distill_resident.cuh"

namespace sdpo {

struct Parts {
  int64_t first_row;
  int count;  // of a row
  PairSums *all, *support;
  BucketSums* buckets;
  Chosen* chosen;
  float2* token_logits;
};
static_assert(2 * sizeof(PairSums) + sizeof(BucketSums) <= kPartBytes);
static_assert(sizeof(Chosen) + sizeof(float2) <= kPartRowBytes);

struct Part {
  int row, part;  // row within the launch
  DEV_INLINE explicit Part(const Parts& parts)
      : row(blockIdx.x / parts.count), part(blockIdx.x % parts.count) {}
};

DEV_INLINE GlobalPair global_pair(const DistillCall& call, int64_t row, int part, int parts,
                                  const Chosen* only) {
  const Slice slice = slice_of(row, call.v, part, parts);
  return {call.student, call.teacher, call.initial, slice, call.teacher_rate, only};
}

// Over every column, or with `chosen` over the chosen ones alone.
__global__ void __launch_bounds__(kRowThreads, 4)
    distill_part_sums(DistillCall call, Parts parts, bool chosen) {
  SHARED(PairSums, warps, kRowThreads / 32);
  const Part at(parts);
  const int64_t row = parts.first_row + at.row;
  const Chosen* only = chosen ? parts.chosen + at.row : nullptr;
  const GlobalPair pair = global_pair(call, row, at.part, parts.count, only);
  const PairSums sums =
      merge_team(pair_sums<true, true>(pair, call.scale), &warps[0], Team{0, 1}, call.scale);
  if (threadIdx.x) return;
  (chosen ? parts.support : parts.all)[blockIdx.x] = sums;
  if (chosen || at.part) return;
  RowFacts facts;
  read_token_logits(call, row, facts);
  parts.token_logits[at.row] = {facts.token_logit, facts.teacher_token_logit};
}

// One block a row.
__global__ void __launch_bounds__(kRowThreads, 4) distill_part_choose(DistillCall call, Parts parts) {
  const Team team{0, 1};
  Smem smem;
  TopKSpace space(smem, team);
  const GlobalPair pair = global_pair(call, parts.first_row + blockIdx.x, 0, 1, nullptr);
  float max = -INFINITY;
  for_columns(pair, [&](float z, int) { max = fmaxf(max, z); });
  publish_maximum(space, team, max);
  __syncthreads();
  const Chosen chosen = find_chosen(pair, call.top_k, max, call.student.is_bf16 ? 16 : 0, space, team);
  if (threadIdx.x == 0) parts.chosen[blockIdx.x] = chosen;
}

template <Kind kind>
__global__ void __launch_bounds__(kRowThreads, 4) distill_part_buckets(DistillCall call, Parts parts) {
  SHARED(BucketSums, warps, kRowThreads / 32);
  const Part at(parts);
  const bool top = call.top_k > 0;
  const Chosen chosen = top ? parts.chosen[at.row] : Chosen{};
  const bool masked = top && kind != Kind::Tail;
  const PairSums* sums = (masked ? parts.support : parts.all) + at.row * parts.count;
  const PairSoftmax softmax(merge_parts(sums, parts.count, call.scale), call.scale);
  const GlobalPair pair = global_pair(call, parts.first_row + at.row, at.part, parts.count,
                                      masked ? parts.chosen + at.row : nullptr);
  const BucketSums total =
      merge_team(bucket_sums<kind>(call, pair, softmax, chosen), &warps[0], Team{0, 1}, call.scale);
  if (threadIdx.x == 0) parts.buckets[blockIdx.x] = total;
}

template <Kind kind>
__global__ void __launch_bounds__(kRowThreads, 4) distill_part_gradient(DistillCall call, Parts parts) {
  SHARED(Factors, factors, 1);
  const Part at(parts);
  const int64_t row = parts.first_row + at.row;
  const bool top = call.top_k > 0, masked = top && kind != Kind::Tail;
  const int first = at.row * parts.count;
  RowFacts facts;
  facts.all = merge_parts(parts.all + first, parts.count, call.scale);
  facts.support = masked ? merge_parts(parts.support + first, parts.count, call.scale) : facts.all;
  if (has_bucket_sums<kind>) facts.buckets = merge_parts(parts.buckets + first, parts.count, call.scale);
  facts.token_logit = parts.token_logits[at.row].x;
  facts.teacher_token_logit = parts.token_logits[at.row].y;
  if (threadIdx.x == 0) factors[0] = finish_row<kind>(call, facts, row, at.part == 0);
  __syncthreads();
  if (!call.dlogits.data) return;
  const Chosen chosen = top ? parts.chosen[at.row] : Chosen{};
  const GlobalPair pair =
      global_pair(call, row, at.part, parts.count, masked ? parts.chosen + at.row : nullptr);
  const PairSoftmax softmax(facts.support, call.scale);
  write_gradient<kind>(call, pair, softmax, factors[0], chosen, call.token_ids[row]);
}

// Rows whose logits fit into a good half of the L2 cache.
inline int64_t rows_at_once(const DeviceProperties& device, const DistillCall& call) {
  int64_t bytes = 0;
  for (const Logits& m : {call.student, call.teacher, call.initial})
    if (m.data) bytes += m.is_bf16 ? 2 : 4;
  return std::clamp<int64_t>(int64_t(device.l2_bytes) * 6 / 10 / (bytes * call.v), 1, kPartRows);
}

inline Parts place_parts(void* scratch, int64_t rows, int count) {
  Parts parts{0, count, nullptr, nullptr, nullptr, nullptr, nullptr};
  parts.token_logits = static_cast<float2*>(scratch);
  parts.chosen = reinterpret_cast<Chosen*>(parts.token_logits + rows);
  parts.all = reinterpret_cast<PairSums*>(parts.chosen + rows);
  parts.support = parts.all + rows * count;
  parts.buckets = reinterpret_cast<BucketSums*>(parts.support + rows * count);
  return parts;
}

template <Kind kind>
void launch_parts(const GpuCall& call, const DistillCall& row, int64_t n) {
  const int64_t at_once = std::min(n, rows_at_once(call.properties(), row));
  Parts parts = place_parts(call.scratch(), at_once, distill_parts(row.v));
  for (; parts.first_row < n; parts.first_row += at_once) {
    const unsigned rows = unsigned(std::min(at_once, n - parts.first_row)), blocks = rows * parts.count;
    launch(distill_part_sums, dim3(blocks), dim3(kRowThreads), 0, call.stream(), row, parts, false);
    if (row.top_k) {
      launch(distill_part_choose, dim3(rows), dim3(kRowThreads), kTopKBytes, call.stream(), row, parts);
      if (kind != Kind::Tail)
        launch(distill_part_sums, dim3(blocks), dim3(kRowThreads), 0, call.stream(), row, parts, true);
    }
    if constexpr (has_bucket_sums<kind>)
      launch(distill_part_buckets<kind>, dim3(blocks), dim3(kRowThreads), 0, call.stream(), row, parts);
    launch(distill_part_gradient<kind>, dim3(blocks), dim3(kRowThreads), 0, call.stream(), row, parts);
  }
}

}  // namespace sdpo
