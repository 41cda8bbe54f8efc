// Causal attention over a packed batch whose sequences share prefixes, with grouped kv heads.
//   s_ij = scale q_i k_j for the keys j that i sees;  lse_i = log sum_j exp(s_ij);  out_i = sum_j exp(s_ij -
//   lse_i) v_j
// q f32 [T,H,E], k and v f32 [T,K,E] (query head h uses kv head h / (H / K)), segments i32 [S,4]
// (attention.h) -> out f32 [T,H,E], lse f32 [T,H]. Key j is visible iff it is in the query's segment
// or an ancestor, and position_i - window < position_j <= position_i (window 0: no limit). scale null:
// 1/sqrt(E). No output aliases an input. Key blocks start at multiples of 64 tokens from the root's first: a
// row has the same bits in any batch, in a tree or as a sequence of its own, and for any number of threads.
#include <algorithm>

#include "core/parallel.h"
#include "ops/attention.h"
#include "ops/attention_rows.h"

namespace sdpo {
namespace {

struct Block {
  int64_t segment, begin, tokens;  // tokens [begin, begin + tokens) of the segment
  int64_t before;                  // tokens of the sequence before `begin`
};

std::vector<Block> query_blocks(const std::vector<Segment>& segments, int64_t tokens) {
  std::vector<int64_t> origin;  // position of the root's first token
  std::vector<Block> blocks;
  for (size_t i = 0; i < segments.size(); i++) {
    const Segment& s = segments[i];
    origin.push_back(s.parent < 0 ? s.position : origin[size_t(s.parent)]);
    for (int64_t at = 0; at < s.length; at += tokens)
      blocks.push_back({int64_t(i), at, std::min(tokens, s.length - at), s.position - origin[i] + at});
  }
  // The longest first, so that no thread is left with one at the end.
  std::stable_sort(blocks.begin(), blocks.end(),
                   [](const Block& a, const Block& b) { return a.before > b.before; });
  return blocks;
}

void attention_fwd(const Call& call) {
  const sdpo_tensor &q = call.in(0), &k = call.in(1);
  const int64_t heads = q.shape[1], kv_heads = k.shape[1], width = q.shape[2], group = heads / kv_heads;
  const auto segments = read_segments(call.in(3), q.shape[0]);
  std::vector<std::vector<KeyPiece>> pieces(segments.size());
  for (size_t i = 0; i < segments.size(); i++)
    for (int64_t s : segment_chain(segments, int64_t(i)))
      pieces[i].push_back({segments[size_t(s)].start, segments[size_t(s)].length});
  const auto blocks = query_blocks(segments, query_tokens(group));
  parallel_tasks(int64_t(blocks.size()) * kv_heads, [&](int64_t task) {
    const Block& b = blocks[size_t(task) % blocks.size()];
    const int64_t kv_head = task / int64_t(blocks.size()), row = segments[size_t(b.segment)].start + b.begin;
    std::vector<int32_t> visible;
    for (int64_t i = 0; i < b.tokens; i++) visible.push_back(int32_t(b.before + i + 1));
    AttentionRows rows{};
    rows.q = call.in_as<float>(0) + (row * heads + kv_head * group) * width;
    rows.out = call.out_as<float>(0) + (row * heads + kv_head * group) * width;
    rows.lse = call.out_as<float>(1) + row * heads + kv_head * group;
    rows.q_stride = heads * width;
    rows.lse_stride = heads;
    rows.tokens = b.tokens;
    rows.kv_heads = 1;
    rows.group = group;
    rows.width = width;
    rows.visible = visible.data();
    rows.window = call.integer(0);
    rows.scale = attention_scale(call, 1, width);
    rows.k = call.in_as<float>(1) + kv_head * width;
    rows.v = call.in_as<float>(2) + kv_head * width;
    rows.key_stride = kv_heads * width;
    rows.pieces = pieces[size_t(b.segment)].data();
    rows.work = thread_work(attention_work_floats(b.tokens, 1, group, width));
    attend(rows);
  });
}

SDPO_OP(attention_fwd)
    .input("q", "f32", "T,H,E")
    .input("k", "f32", "T,K,E")
    .input("v", "f32", "T,K,E")
    .input("segments", "i32", "S,4")
    .output("out", "f32", "T,H,E")
    .output("lse", "f32", "T,H")
    .integer("window", 0, 0, 1 << 30)
    .nullable("scale", -1e30, 1e30)
    .check([](const Dims& dims, const double*) { check_attention_sizes(dims); })
    .cpu<attention_fwd>();

}  // namespace
}  // namespace sdpo
