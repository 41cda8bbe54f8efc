// The K largest of a row that a team of blocks holds, as a threshold (Chosen); ties go to the lower column.
// Each thread knows its columns' maximum. The K-th largest of these maxima bounds the K-th largest logit from
// below, and about K logits reach it: they are collected, and the K-th among them is found by counting. Where
// too many reach it (large K, many equal logits), the threshold is searched bit by bit over the whole row.
// NaN is never chosen; where fewer than K are left, every other column is.
#pragma once
#include "ops/distill_pair.cuh"

namespace sdpo {

constexpr int kListed = 512, kGathered = 1024;  // candidates of a block, and of a row

struct TopKSpace {
  uint64_t *listed, *gathered;  // gathered lies over the maxima, which are used before
  uint32_t* maxima;             // of every thread of the team, as keys
  int *sums, *count;
  Chosen* found;
  int rounds = 0;

  DEV_INLINE TopKSpace(Smem& smem, const Team& team)
      : listed(smem.take<uint64_t>(kListed)),
        gathered(smem.take<uint64_t>(kGathered)),
        maxima(reinterpret_cast<uint32_t*>(gathered)),
        sums(smem.take<int>(2 * team.blocks * (blockDim.x / 32))),
        count(smem.take<int>(1)),
        found(smem.take<Chosen>(1)) {
    if (threadIdx.x == 0) *count = 0;
  }
};
static_assert(kGathered * 2 >= 8 * kRowThreads, "the maxima of eight blocks lie there");
constexpr uint64_t kTopKBytes = 8 * (kListed + kGathered) + 4 * 2 * 8 * (kRowThreads / 32) + 64;

// Orders like the logits; both zeros are equal, NaN is below everything.
DEV_INLINE uint32_t key_of(float z) {
  if (isnan(z)) return 0;
  const uint32_t bits = __float_as_uint(z + 0.f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
DEV_INLINE float logit_of(uint32_t key) {
  const float z = __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
  return isnan(z) ? -INFINITY : z;
}

// To be called before a barrier of the team that comes before find_chosen.
DEV_INLINE void publish_maximum(const TopKSpace& space, const Team& team, float max) {
  for (int block = 0; block < team.blocks; block++)
    *team.shared_of(&space.maxima[team.rank * blockDim.x + threadIdx.x], block) = key_of(max);
}

DEV_INLINE int sum_lanes(int value) {
  for (int mask = 16; mask; mask /= 2) value += __shfl_xor_sync(~0u, value, mask);
  return value;
}

// The sum over the team's threads. Two buffers in turn: one barrier a round.
DEV_INLINE int sum_team(int mine, TopKSpace& space, const Team& team) {
  const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
  int* sums = space.sums + (space.rounds++ & 1) * team.blocks * warps;
  mine = sum_lanes(mine);
  if (lane < team.blocks) *team.shared_of(&sums[team.rank * warps + threadIdx.x / 32], lane) = mine;
  team.sync();
  int total = 0;
  for (int i = lane; i < team.blocks * warps; i += 32) total += sums[i];
  return sum_lanes(total);
}

// The largest key that at least k keys reach; low bits are left 0.
template <class CountAtLeast>
DEV_INLINE uint32_t kth_key(int k, int low_bit, CountAtLeast count_at_least) {
  uint32_t key = 0;
  for (int bit = 31; bit >= low_bit; bit--)
    if (count_at_least(key | 1u << bit) >= k) key |= 1u << bit;
  return key;
}

// Calls body(logit, column) for this thread's columns of the row.
template <class Pair, class Body>
DEV_INLINE void for_columns(const Pair& pair, Body body) {
  for (int group = threadIdx.x; group < pair.slice.groups; group += blockDim.x) {
    float z[kGroup];
    pair.read_student(group, z);
    const int column = pair.slice.first + kGroup * group;
    for (int j = 0; j < kGroup; j++)
      if (unsigned(column + j) < unsigned(pair.slice.v)) body(z[j], column + j);
  }
}

template <class Pair>
DEV_INLINE Chosen search_row(const Pair& pair, int k, TopKSpace& space, const Team& team) {
  const auto count = [&](auto wanted) {
    int mine = 0;
    for_columns(pair, [&](float z, int column) { mine += wanted(key_of(z), column); });
    return sum_team(mine, space, team);
  };
  const uint32_t key =
      kth_key(k, 0, [&](uint32_t least) { return count([least](uint32_t at, int) { return at >= least; }); });
  if (key == 0) return {-INFINITY, pair.slice.v};  // fewer than k
  const int needed = k - count([key](uint32_t at, int) { return at > key; });
  int last = 0;
  for (int bit = 1 << 30; bit; bit /= 2) {
    const int column = last + bit;
    if (column > pair.slice.v) continue;
    const int before = count([=](uint32_t at, int c) { return at == key && c < column; });
    if (before < needed) last = column;
  }
  return {logit_of(key), last};
}

// max: of this thread's columns. low_bit: 16 where the logits are bf16.
template <class Pair>
DEV_INLINE Chosen find_chosen(const Pair& pair, int k, float max, int low_bit, TopKSpace& space,
                              const Team& team) {
  if (k >= pair.slice.v) return {-INFINITY, pair.slice.v};
  const int threads = blockDim.x, maxima = team.blocks * threads;
  const float bound = logit_of(kth_key(k, low_bit, [&](uint32_t least) {
    int mine = 0;
    for (int i = threadIdx.x; i < maxima; i += threads) mine += space.maxima[i] >= least;
    return sum_team(mine, space, {0, 1});
  }));
  if (max >= bound)
    for_columns(pair, [&](float z, int column) {
      if (!(z >= bound)) return;
      const int at = atomicAdd(space.count, 1);
      if (at < kListed) space.listed[at] = uint64_t(key_of(z)) << 32 | uint32_t(~column);
    });
  team.sync();
  int total = 0;
  bool complete = true;
  for (int block = 0; block < team.blocks; block++) {
    const int count = *team.shared_of(space.count, block);
    complete = complete && count <= kListed && total + count <= kGathered;
    if (complete) {
      const uint64_t* listed = team.shared_of(space.listed, block);
      for (int i = threadIdx.x; i < count; i += threads) space.gathered[total + i] = listed[i];
    }
    total += count;
  }
  if (!complete) return search_row(pair, k, space, team);
  if (threadIdx.x == 0 && total < k) *space.found = {-INFINITY, pair.slice.v};
  __syncthreads();
  for (int i = threadIdx.x; i < total; i += threads) {
    const uint64_t key = space.gathered[i];
    int above = 0;
    for (int j = 0; j < total; j++) above += space.gathered[j] > key;
    if (above == k - 1) *space.found = {logit_of(uint32_t(key >> 32)), int(~uint32_t(key))};
  }
  __syncthreads();
  return *space.found;
}

}  // namespace sdpo
