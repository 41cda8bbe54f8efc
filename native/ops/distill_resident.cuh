// A row pair read once: its slices lie in the shared memory of one block, or of a cluster (sm_90), and the
// gradient goes straight from there to memory.
#pragma once
#include <type_traits>

#include "ops/distill_row.cuh"
#include "ops/distill_topk.cuh"

namespace sdpo {

template <Kind kind>
constexpr bool has_bucket_sums = kind == Kind::Jsd || kind == Kind::Clipped || kind == Kind::Tail;

template <class T>
DEV_INLINE SharedPair<T> load_pair(const DistillCall& call, const RowPlan& plan, const Team& team,
                                   int64_t row, Smem& smem) {
  const Slice slice = slice_of(row, call.v, team.rank, team.blocks);
  const uint32_t length = uint32_t(plan.groups) * kGroup;
  T* student = smem.take<T>(length, 128);
  T* teacher = smem.take<T>(length, 128);
  T* initial = call.initial.data ? smem.take<T>(length, 128) : nullptr;
  uint64_t* arrived = smem.take<uint64_t>(1);
#if DEV_HAS_CLUSTER
  if (plan.bulk && threadIdx.x == 0) mbar_init(arrived, initial ? 3 : 2);
#endif
  team.sync();  // the barrier is there, and so are the other blocks
  load_slice(student, call.student, slice, plan.bulk, arrived);
  load_slice(teacher, call.teacher, slice, plan.bulk, arrived);
  if (initial) load_slice(initial, call.initial, slice, plan.bulk, arrived);
#if DEV_HAS_CLUSTER
  if (plan.bulk) mbar_wait(arrived, 0);
#endif
  __syncthreads();
  return {student, teacher, initial, slice, call.teacher_rate};
}

DEV_INLINE void read_token_logits(const DistillCall& call, int64_t row, RowFacts& facts) {
  const int token = call.token_ids[row];
  facts.token_logit = facts.teacher_token_logit = NAN;
  if (unsigned(token) >= unsigned(call.v)) return;
  facts.token_logit = read_logit(call.student, row, call.v, token);
  facts.teacher_token_logit = read_logit(call.teacher, row, call.v, token);
  if (call.initial.data)
    facts.teacher_token_logit =
        mix(read_logit(call.initial, row, call.v, token), facts.teacher_token_logit, call.teacher_rate);
}

struct NoSpace {
  DEV_INLINE NoSpace(Smem&, const Team&) {}
};

template <class T, Kind kind>
__global__ void __launch_bounds__(kRowThreads, kind == Kind::Tail ? 2 : 3)
    distill_resident(DistillCall call, RowPlan plan) {
  const Team team = Team::of_cluster(plan.blocks);
  const int64_t row = blockIdx.x / plan.blocks;
  const int slots = plan.blocks * int(blockDim.x / 32);
  Smem smem;
  PairSums* all = smem.take<PairSums>(slots);
  BucketSums* buckets = smem.take<BucketSums>(slots);
  Factors* factors = smem.take<Factors>(1);
  // Taken before load_pair's barrier: other blocks write there.
  std::conditional_t<kind == Kind::Tail, TopKSpace, NoSpace> space(smem, team);
  RowFacts facts;
  if (threadIdx.x == 0) read_token_logits(call, row, facts);
  const SharedPair<T> pair = load_pair<T>(call, plan, team, row, smem);

  constexpr bool divergence = kind != Kind::Token && kind != Kind::Tail;
  const PairSums mine = pair_sums<divergence, kind == Kind::Forward>(pair, call.scale);
  Chosen chosen{};
  if constexpr (kind == Kind::Tail) {
    publish_maximum(space, team, mine.student.max);
    facts.all = merge_team(mine, all, team, call.scale);
    chosen = find_chosen(pair, call.top_k, mine.student.max, sizeof(T) == 2 ? 16 : 0, space, team);
  } else {
    facts.all = merge_team(mine, all, team, call.scale);
  }
  facts.support = facts.all;
  const PairSoftmax softmax(facts.all, call.scale);
  if constexpr (has_bucket_sums<kind>)
    facts.buckets = merge_team(bucket_sums<kind>(call, pair, softmax, chosen), buckets, team, call.scale);
  if (threadIdx.x == 0) *factors = finish_row<kind>(call, facts, row, team.rank == 0);
  __syncthreads();
  if (call.dlogits.data) write_gradient<kind>(call, pair, softmax, *factors, chosen, call.token_ids[row]);
}

inline uint64_t resident_extra_bytes(Kind kind) {
  constexpr uint64_t slots = 8 * kRowThreads / 32;
  return slots * (sizeof(PairSums) + sizeof(BucketSums)) + 1024 + (kind == Kind::Tail ? kTopKBytes : 0);
}

template <class T, Kind kind>
void launch_resident(const GpuCall& call, const DistillCall& row, int64_t n, const RowPlan& plan,
                     uint64_t bytes) {
  launch_cluster(distill_resident<T, kind>, dim3(unsigned(n * plan.blocks)), dim3(plan.threads), bytes,
                 plan.blocks, call.stream(), row, plan);
}

}  // namespace sdpo
