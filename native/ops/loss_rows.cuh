// Rows of logits [N, V] on a GPU: what the row kernels (losses, statistics) are made of.
// A row is cut into groups of 8 columns. A group is one or two 16-byte accesses where the row starts at a
// multiple of 8 elements (every row, where V is one) and the group ends within it; else it is read column by
// column, and columns past the end are -inf and never written. A row may be shared by several blocks, each
// with a run of groups (Slice). Sums are cut by V alone: a row's bits depend on nothing but the row.
// Exponentials are to base 2: x = (z - max) * scale with scale = log2(e) / temperature, e = 2^x.
#pragma once
#include <algorithm>

#include "backends/device.cuh"

namespace sdpo {

constexpr int kGroup = 8;
constexpr float kLn2 = 0.693147180559945309f;
constexpr float kLog2e = 1.44269504088896341f;

// Logits, row-major, f32 or bf16; null where there are none. aligned: to 16 bytes, else read one by one.
struct Logits {
  void* data;
  bool is_bf16, aligned;
};

inline Logits logits_of(const sdpo_tensor& t) {
  return {t.data, t.dtype == SDPO_BF16, reinterpret_cast<uintptr_t>(t.data) % 16 == 0};
}

// The columns first, first + 1, ... of a row, as `groups` groups; group 0 starts at element `origin`.
struct Slice {
  int64_t origin;
  int first, groups, v;
  bool aligned;
  DEV_INLINE bool whole(int group) const { return aligned && first + kGroup * (group + 1) <= v; }
};

// Part `part` of `parts` of a row.
DEV_INLINE Slice slice_of(int64_t row, int v, int part, int parts) {
  const int64_t begin = row * v, total = (v + kGroup - 1) / kGroup;
  const int from = int(total * part / parts), to = int(total * (part + 1) / parts);
  return {begin + kGroup * from, kGroup * from, to - from, v, begin % kGroup == 0};
}

// The most groups that slice_of gives a part.
inline int most_groups(int v, int parts) { return ((v + kGroup - 1) / kGroup + parts - 1) / parts; }

DEV_INLINE void load_group(const float* from, float (&x)[kGroup]) {
  const float4 low = ld16(reinterpret_cast<const float4*>(from));
  const float4 high = ld16(reinterpret_cast<const float4*>(from) + 1);
  x[0] = low.x, x[1] = low.y, x[2] = low.z, x[3] = low.w;
  x[4] = high.x, x[5] = high.y, x[6] = high.z, x[7] = high.w;
}
DEV_INLINE void load_group(const bf16* from, float (&x)[kGroup]) {
  const bf16x8 packed = ld16(reinterpret_cast<const bf16x8*>(from));
  for (int j = 0; j < kGroup; j++) x[j] = to_f32(packed.v[j]);
}
DEV_INLINE void store_group(float* to, const float (&x)[kGroup]) {
  st16(reinterpret_cast<float4*>(to), float4{x[0], x[1], x[2], x[3]});
  st16(reinterpret_cast<float4*>(to) + 1, float4{x[4], x[5], x[6], x[7]});
}
DEV_INLINE void store_group(bf16* to, const float (&x)[kGroup]) {
  bf16x8 packed;
  for (int j = 0; j < kGroup; j++) packed.v[j] = to_bf16(x[j]);
  st16(reinterpret_cast<bf16x8*>(to), packed);
}
DEV_INLINE float widen(float x) { return x; }
DEV_INLINE float widen(bf16 x) { return to_f32(x); }
DEV_INLINE void narrow(float x, float* to) { *to = x; }
DEV_INLINE void narrow(float x, bf16* to) { *to = to_bf16(x); }

// A group in global memory.
template <class T>
DEV_INLINE void read_group(const T* matrix, const Slice& slice, int group, float (&x)[kGroup]) {
  const T* from = matrix + slice.origin + kGroup * group;
  if (slice.whole(group)) return load_group(from, x);
  const int left = slice.v - slice.first - kGroup * group;
  for (int j = 0; j < kGroup; j++) x[j] = j < left ? widen(from[j]) : -INFINITY;
}
DEV_INLINE void read_group(const Logits& m, Slice slice, int group, float (&x)[kGroup]) {
  slice.aligned = slice.aligned && m.aligned;
  if (m.is_bf16) return read_group(static_cast<const bf16*>(m.data), slice, group, x);
  read_group(static_cast<const float*>(m.data), slice, group, x);
}

template <class T>
DEV_INLINE void write_group(T* matrix, const Slice& slice, int group, const float (&x)[kGroup]) {
  T* to = matrix + slice.origin + kGroup * group;
  if (slice.whole(group)) return store_group(to, x);
  const int left = slice.v - slice.first - kGroup * group;
  for (int j = 0; j < kGroup; j++)
    if (j < left) narrow(x[j], to + j);
}
DEV_INLINE void write_group(const Logits& m, Slice slice, int group, const float (&x)[kGroup]) {
  slice.aligned = slice.aligned && m.aligned;
  if (m.is_bf16) return write_group(static_cast<bf16*>(m.data), slice, group, x);
  write_group(static_cast<float*>(m.data), slice, group, x);
}

DEV_INLINE float read_logit(const Logits& m, int64_t row, int v, int column) {
  const int64_t at = row * v + column;
  return m.is_bf16 ? to_f32(static_cast<const bf16*>(m.data)[at]) : static_cast<const float*>(m.data)[at];
}

DEV_INLINE float max_of(const float (&x)[kGroup]) {  // NaN is ignored
  float most = x[0];
  for (int j = 1; j < kGroup; j++) most = fmaxf(most, x[j]);
  return most;
}

// What exponents are measured from; finite for an empty row, so that -inf has the exponential 0.
DEV_INLINE float base_of(float max, float scale) { return max == -INFINITY ? 0.f : max * scale; }
// The exponent of the factor that takes sums relative to `from` to sums relative to `to`.
DEV_INLINE float base_shift(float from, float to, float scale) {
  return from == -INFINITY ? 0.f : base_of(from, scale) - base_of(to, scale);
}

// Softmax sums of some columns: of e, and of e * x.
struct RowSums {
  float max = -INFINITY, sum = 0, weighted = 0;

  DEV_INLINE void move_to(float to, float scale) {
    const float shift = base_shift(max, to, scale), factor = exp2_fast(shift);
    weighted = factor * (weighted + sum * shift);
    sum *= factor;
    max = to;
  }
  DEV_INLINE void merge(RowSums other, float scale) {
    const float to = fmaxf(max, other.max);
    move_to(to, scale);
    other.move_to(to, scale);
    sum += other.sum;
    weighted += other.weighted;
  }
  DEV_INLINE RowSums of_lane(int mask) const {
    RowSums other;
    other.max = __shfl_xor_sync(~0u, max, mask);
    other.sum = __shfl_xor_sync(~0u, sum, mask);
    other.weighted = __shfl_xor_sync(~0u, weighted, mask);
    return other;
  }
  DEV_INLINE void add(const float (&z)[kGroup], float scale) {
    const float most = max_of(z);
    if (most > max) move_to(most, scale);
    const float base = base_of(max, scale);
    for (int j = 0; j < kGroup; j++) {
      const float x = fmaf(z[j], scale, -base), e = exp2_fast(x);
      sum += e;
      if (e > 0) weighted += e * x;
    }
  }
};

// A row's softmax, from the sums of all its columns. Natural logarithms outside, base 2 inside.
struct RowSoftmax {
  float scale, base, log_sum, inv_sum, mean;  // mean of x

  DEV_INLINE RowSoftmax(const RowSums& s, float scale_)
      : scale(scale_),
        base(base_of(s.max, scale_)),
        log_sum(s.max == -INFINITY ? NAN : log2f(s.sum)),
        inv_sum(1 / s.sum),
        mean(s.weighted / s.sum) {}
  DEV_INLINE float exponent(float z) const { return fmaf(z, scale, -base); }
  DEV_INLINE float log2_of(float z) const { return exponent(z) - log_sum; }
  DEV_INLINE float logprob(float z) const { return kLn2 * log2_of(z); }
  DEV_INLINE float lse() const { return kLn2 * (base + log_sum); }
  DEV_INLINE float entropy() const { return kLn2 * (log_sum - mean); }
};

// The blocks that share a row: a cluster, or one block.
struct Team {
  int rank, blocks;

  DEV_INLINE static Team of_cluster(int blocks) {
#if DEV_HAS_CLUSTER
    if (blocks > 1) return {int(cluster_rank()), blocks};
#endif
    return {0, blocks};
  }
  DEV_INLINE void sync() const {
#if DEV_HAS_CLUSTER
    if (blocks > 1) return cluster_sync();
#endif
    __syncthreads();
  }
  template <class T>
  DEV_INLINE T* shared_of(T* mine, int block) const {
#if DEV_HAS_CLUSTER
    if (blocks > 1) return cluster_map(mine, block);
#endif
    return mine;
  }
};

template <class Sums>
DEV_INLINE Sums merge_lanes(Sums sums, float scale) {
  for (int mask = 16; mask; mask /= 2) sums.merge(sums.of_lane(mask), scale);
  return sums;
}

// Merges every thread's sums over the team; every thread gets the result. `all` holds one for each warp of
// the team, in every block, and may be used once.
template <class Sums>
DEV_INLINE Sums merge_team(Sums mine, Sums* all, const Team& team, float scale) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  mine = merge_lanes(mine, scale);
  if (lane < team.blocks) *team.shared_of(&all[team.rank * warps + warp], lane) = mine;
  team.sync();
  Sums total;
  for (int i = lane; i < team.blocks * warps; i += 32) total.merge(all[i], scale);
  return merge_lanes(total, scale);
}

// Merges sums that other blocks left in global memory; every thread of the warp gets the result.
template <class Sums>
DEV_INLINE Sums merge_parts(const Sums* parts, int count, float scale) {
  Sums total;
  for (int i = threadIdx.x % 32; i < count; i += 32) total.merge(parts[i], scale);
  return merge_lanes(total, scale);
}

// Brings a slice into shared memory as T, in groups; with `bulk` it is there once `arrived`
// (which expects one arrival a slice) completes, else after a barrier.
template <class T>
DEV_INLINE void load_slice(T* to, const Logits& m, const Slice& slice, bool bulk, uint64_t* arrived) {
#if DEV_HAS_CLUSTER
  if (bulk && slice.aligned && m.aligned && m.is_bf16 == (sizeof(T) == 2)) {
    const int end = slice.groups, whole = end && !slice.whole(end - 1) ? end - 1 : end;
    const T* matrix = static_cast<const T*>(m.data);
    if (threadIdx.x == 0 && whole) {
      const uint32_t bytes = uint32_t(whole) * kGroup * sizeof(T);
      mbar_expect(arrived, bytes);
      bulk_load(to, matrix + slice.origin, bytes, arrived);
    } else if (threadIdx.x == 0) {
      mbar_arrive(arrived);
    }
    if (threadIdx.x == 0 && whole < end) {
      float x[kGroup];
      read_group(matrix, slice, whole, x);
      store_group(to + whole * kGroup, x);
    }
    return;
  }
  if (bulk && threadIdx.x == 0) mbar_arrive(arrived);
#endif
  for (int group = threadIdx.x; group < slice.groups; group += blockDim.x) {
    float x[kGroup];
    read_group(m, slice, group, x);
    store_group(to + group * kGroup, x);
  }
}

// How rows are spread over the device.
struct RowPlan {
  int blocks;           // of a row; 0: its slices do not fit into shared memory
  int threads, groups;  // of a block, and of a slice at most
  bool bulk;
};

constexpr int kRowThreads = 256;
constexpr uint64_t kSliceBytes = 74 << 10;  // three blocks a multiprocessor on sm_90

// The fewest blocks (a power of two, at most 8) whose slices take kSliceBytes each, or what a block can have.
inline RowPlan plan_rows(const DeviceProperties& device, int v, uint64_t group_bytes, uint64_t extra_bytes) {
  const bool cluster = device.arch >= 90;
  RowPlan plan{1, kRowThreads, most_groups(v, 1), cluster};
  while (cluster && plan.blocks < 8 && plan.groups * group_bytes > kSliceBytes)
    plan.groups = most_groups(v, plan.blocks *= 2);
  plan.threads = std::min(kRowThreads, (plan.groups + 31) / 32 * 32);
  const uint64_t bytes = plan.groups * group_bytes + extra_bytes;
  if (bytes > (cluster ? device.shared_per_block : kSliceBytes)) plan.blocks = 0;
  return plan;
}

}  // namespace sdpo
