// Attention of new tokens to the cached tokens of their sequences, for generation.
//   out_n = sum_j softmax_j(scale q_n k_j) v_j  over the first `visible_n` tokens of sequence s_n, and of
//   these the last `window` (0: all)
// q f32 [N,H,E], k_pages and v_pages f32 or bf16 [P,B,K,E] (both alike), rows i32 [N,2] = (s_n, visible_n),
// page_starts i32 [S1], pages i32 [L,2] = (page, tokens in it) -> out f32 [N,H,E]. Sequence s is the first
// tokens of pages[page_starts[s]] .. pages[page_starts[s + 1] - 1], one page after the other; a page may hold
// fewer than B tokens, and sequences may share pages. scale null: 1/sqrt(E).
// A row's bits depend on its query and its tokens alone: not on the other rows, on how the tokens lie in
// pages, nor on the number of threads. They are the bits that attention_fwd gives.
#include <algorithm>

#include "core/parallel.h"
#include "ops/attention.h"
#include "ops/attention_rows.h"

namespace sdpo {
namespace {

struct Sequences {
  std::vector<KeyPiece> pieces;
  std::vector<int64_t> starts, tokens;  // by sequence: first piece, number of tokens
};

void check_starts(const int32_t* starts, int64_t count, int64_t entries) {
  if (count < 1) throw Error("ERR_SDPO_OP", "page_starts: expected at least one entry");
  for (int64_t s = 0; s < count; s++)
    if (starts[s] < (s ? starts[s - 1] : 0) || starts[s] > entries)
      throw Error("ERR_SDPO_OP", str("page_starts[", s, "]: ", starts[s], ": expected ascending entries of ",
                                     entries, " pages"));
}

Sequences read_sequences(const Call& call) {
  const sdpo_tensor &starts = call.in(4), &table = call.in(5);
  const auto* start = call.in_as<int32_t>(4);
  const auto* entry = call.in_as<int32_t>(5);
  const int64_t pages = call.in(1).shape[0], page_tokens = call.in(1).shape[1];
  check_starts(start, starts.shape[0], table.shape[0]);
  Sequences result;
  for (int64_t s = 0; s + 1 < starts.shape[0]; s++) {
    result.starts.push_back(int64_t(result.pieces.size()));
    int64_t tokens = 0;
    for (int64_t i = start[s]; i < start[s + 1]; i++) {
      const int64_t page = entry[2 * i], count = entry[2 * i + 1];
      if (page < 0 || page >= pages || count < 0 || count > page_tokens)
        throw Error("ERR_SDPO_OP", str("pages[", i, "]: page ", page, " with ", count,
                                       " tokens: expected one of ", pages, " pages of ", page_tokens));
      result.pieces.push_back({page * page_tokens, count});
      tokens += count;
    }
    result.tokens.push_back(tokens);
  }
  return result;
}

struct Block {
  int64_t row, count, sequence;
};

// Rows of one sequence that follow one another make a block.
std::vector<Block> row_blocks(const int32_t* rows, int64_t count, int64_t most, const Sequences& sequences) {
  std::vector<Block> blocks;
  for (int64_t n = 0; n < count; n++) {
    const int64_t s = rows[2 * n], visible = rows[2 * n + 1];
    if (s < 0 || s >= int64_t(sequences.tokens.size()))
      throw Error("ERR_SDPO_OP", str("rows[", n, "]: sequence ", s, ": there are ", sequences.tokens.size()));
    if (visible < 1 || visible > sequences.tokens[size_t(s)])
      throw Error("ERR_SDPO_OP", str("rows[", n, "]: ", visible, " visible tokens: sequence ", s, " has ",
                                     sequences.tokens[size_t(s)]));
    if (blocks.empty() || blocks.back().sequence != s || blocks.back().count == most)
      blocks.push_back({n, 0, s});
    blocks.back().count++;
  }
  return blocks;
}

void attention_paged(const Call& call) {
  const sdpo_tensor &q = call.in(0), &k = call.in(1);
  const int64_t heads = q.shape[1], kv_heads = k.shape[2], width = q.shape[2], group = heads / kv_heads;
  if (k.dtype != call.in(2).dtype) throw Error("ERR_SDPO_OP", "v_pages: expected the dtype of k_pages");
  const auto* table = call.in_as<int32_t>(3);
  const Sequences sequences = read_sequences(call);
  const auto blocks = row_blocks(table, q.shape[0], query_tokens(group), sequences);
  const int64_t element = dtype_bytes(DType(k.dtype));
  const int64_t count = int64_t(blocks.size());
  // Decoding waits for memory, where the heads of a token lie together: a task takes them all.
  const bool together = q.shape[0] <= 4 * count && count >= 4 * thread_count();
  parallel_tasks(together ? count : count * kv_heads, [&](int64_t task) {
    const Block& b = blocks[size_t(task % count)];
    const int64_t kv_head = task / count, first = (b.row * heads + kv_head * group) * width;
    std::vector<int32_t> visible;
    for (int64_t n = b.row; n < b.row + b.count; n++) visible.push_back(table[2 * n + 1]);
    AttentionRows rows{};
    rows.q = call.in_as<float>(0) + first;
    rows.out = call.out_as<float>(0) + first;
    rows.q_stride = heads * width;
    rows.tokens = b.count;
    rows.kv_heads = together ? kv_heads : 1;
    rows.group = group;
    rows.width = width;
    rows.visible = visible.data();
    rows.window = call.integer(0);
    rows.scale = attention_scale(call, 1, width);
    rows.k = call.in_as<char>(1) + kv_head * width * element;
    rows.v = call.in_as<char>(2) + kv_head * width * element;
    rows.bf16 = k.dtype == SDPO_BF16;
    rows.key_stride = kv_heads * width;
    rows.pieces = sequences.pieces.data() + sequences.starts[size_t(b.sequence)];
    rows.work = thread_work(attention_work_floats(b.count, rows.kv_heads, group, width));
    attend(rows);
  });
}

SDPO_OP(attention_paged)
    .input("q", "f32", "N,H,E")
    .input("k_pages", "f32|bf16", "P,B,K,E")
    .input("v_pages", "f32|bf16", "P,B,K,E")
    .input("rows", "i32", "N,2")
    .input("page_starts", "i32", "S1")
    .input("pages", "i32", "L,2")
    .output("out", "f32", "N,H,E")
    .integer("window", 0, 0, 1 << 30)
    .nullable("scale", -1e30, 1e30)
    .check([](const Dims& dims, const double*) { check_attention_sizes(dims); })
    .cpu<attention_paged>();

}  // namespace
}  // namespace sdpo
