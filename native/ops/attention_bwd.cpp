// Gradients of attention_fwd, the probabilities recomputed from lse:
//   p_ij = exp(scale q_i k_j - lse_i),  ds_ij = p_ij (dout_i v_j - dout_i out_i)
//   dq_i = scale sum_j ds_ij k_j,  dk_j = scale sum_i ds_ij q_i,  dv_j = sum_i p_ij dout_i
// q, out, dout, dq f32 [T,H,E], k, v, dk, dv f32 [T,K,E], lse f32 [T,H], segments i32 [S,4], window and scale
// as in attention_fwd. No output aliases an input. A task is a tree and a query head: it adds up dk and dv of
// that head over all queries that see a key, in the order of the segments; a second pass adds the heads of a
// kv head in order. The bits do not depend on the number of threads, nor on the other trees of the batch.
#include "ops/attention_bwd.h"

#include <algorithm>

#include "core/parallel.h"
#include "ops/attention.h"

namespace sdpo {
namespace {

struct Backward {
  explicit Backward(const Call& call)
      : call(call),
        rows(call.in(0).shape[0]),
        heads(call.in(0).shape[1]),
        kv_heads(call.in(1).shape[1]),
        width(call.in(0).shape[2]),
        wide(round_up(width, 16)),
        segments(read_segments(call.in(6), rows)) {
    k = static_cast<float*>(call.scratch());
    v = k + kv_heads * rows * wide;
    dk = v + kv_heads * rows * wide;
    dv = dk + heads * rows * wide;
  }

  const Call& call;
  int64_t rows, heads, kv_heads, width, wide;
  std::vector<Segment> segments;
  float *k, *v;    // [K,T,wide]
  float *dk, *dv;  // [H,T,wide]: what each query head adds
};

void pack(const Backward& b, const float* from, float* to) {
  parallel_for(b.rows * b.kv_heads, 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const float* row = from + i * b.width;
      float* packed = to + ((i % b.kv_heads) * b.rows + i / b.kv_heads) * b.wide;
      std::copy(row, row + b.width, packed);
      std::fill(packed + b.width, packed + b.wide, 0.f);
    }
  });
}

// Adds up the heads of each kv head.
void unpack(const Backward& b, const float* from, float* to) {
  const int64_t group = b.heads / b.kv_heads;
  parallel_for(b.rows * b.kv_heads, 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      float* sum = to + i * b.width;
      const float* part = from + ((i % b.kv_heads) * group * b.rows + i / b.kv_heads) * b.wide;
      std::copy(part, part + b.width, sum);
      for (int64_t g = 1; g < group; g++)
        for (int64_t e = 0; e < b.width; e++) sum[e] += part[g * b.rows * b.wide + e];
    }
  });
}

void meet_keys(const Backward& b, const QueryBlock& queries, int64_t head, const Segment& keys) {
  const int64_t kv = (head / (b.heads / b.kv_heads) * b.rows + keys.start) * b.wide;
  const int64_t own = (head * b.rows + keys.start) * b.wide;
  const int64_t end = std::min(keys.length, queries.position + queries.count - keys.position);
  for (int64_t at = 0; at < end; at += kBackwardKeys) {
    const int64_t count = std::min(kBackwardKeys, end - at);
    if (queries.window && keys.position + at + count - 1 <= queries.position - queries.window) continue;
    const int64_t offset = at * b.wide;
    backward_step(queries, {b.k + kv + offset, b.v + kv + offset, b.dk + own + offset, b.dv + own + offset,
                            count, keys.position + at});
  }
}

void tree_head(const Backward& b, const std::vector<int64_t>& tree, int64_t head) {
  QueryBlock queries{};
  queries.q_stride = b.heads * b.width;
  queries.lse_stride = b.heads;
  queries.width = b.width;
  queries.window = b.call.integer(0);
  queries.scale = attention_scale(b.call, 1, b.width);
  queries.work = thread_work(backward_work_floats(b.width));
  for (int64_t index : tree) {
    const Segment& s = b.segments[size_t(index)];
    const int64_t own = (head * b.rows + s.start) * b.wide;
    std::fill_n(b.dk + own, s.length * b.wide, 0.f);
    std::fill_n(b.dv + own, s.length * b.wide, 0.f);
    const auto chain = segment_chain(b.segments, index);
    for (int64_t at = 0; at < s.length; at += kBackwardQueries) {
      const int64_t row = (s.start + at) * b.heads + head;
      queries.q = b.call.in_as<float>(0) + row * b.width;
      queries.out = b.call.in_as<float>(3) + row * b.width;
      queries.lse = b.call.in_as<float>(4) + row;
      queries.dout = b.call.in_as<float>(5) + row * b.width;
      queries.dq = b.call.out_as<float>(0) + row * b.width;
      queries.count = std::min(kBackwardQueries, s.length - at);
      queries.position = s.position + at;
      backward_begin(queries);
      for (int64_t c : chain) meet_keys(b, queries, head, b.segments[size_t(c)]);
      backward_end(queries);
    }
  }
}

void attention_bwd(const Call& call) {
  const Backward b(call);
  const auto trees = segment_trees(b.segments);
  pack(b, call.in_as<float>(1), b.k);
  pack(b, call.in_as<float>(2), b.v);
  parallel_tasks(int64_t(trees.size()) * b.heads,
                 [&](int64_t task) { tree_head(b, trees[size_t(task / b.heads)], task % b.heads); });
  unpack(b, b.dk, call.out_as<float>(1));
  unpack(b, b.dv, call.out_as<float>(2));
}

SDPO_OP(attention_bwd)
    .input("q", "f32", "T,H,E")
    .input("k", "f32", "T,K,E")
    .input("v", "f32", "T,K,E")
    .input("out", "f32", "T,H,E")
    .input("lse", "f32", "T,H")
    .input("dout", "f32", "T,H,E")
    .input("segments", "i32", "S,4")
    .output("dq", "f32", "T,H,E")
    .output("dk", "f32", "T,K,E")
    .output("dv", "f32", "T,K,E")
    .integer("window", 0, 0, 1 << 30)
    .nullable("scale", -1e30, 1e30)
    .scratch([](const Dims& d, const double*) {
      return uint64_t(2 * (d.at("K") + d.at("H")) * d.at("T") * round_up(d.at("E"), 16)) * sizeof(float);
    })
    .check([](const Dims& dims, const double*) { check_attention_sizes(dims); })
    .cpu<attention_bwd>();

}  // namespace
}  // namespace sdpo
