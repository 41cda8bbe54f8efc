#include "ops/attention_rows.h"

#include "ops/attention_tile.h"

namespace sdpo {
namespace SDPO_ISA {
namespace {

// One kv head's part of the work memory; keys, values and scores are shared. Queries and scores lie
// transposed: a lane is a row (token, head), so that softmax needs no sum across lanes.
struct Work {
  int64_t rows, padded, wide;
  float *keys, *values;        // [kKeyBlock,wide]
  float* scores;               // [kKeyBlock,padded]
  float* queries;              // [width,padded]
  float* sums;                 // [rows,wide]
  float *top, *mass, *factor;  // [padded]
  int32_t *visible, *first;    // [padded]: keys first .. visible - 1
};

Work lay_out(const AttentionRows& t, int64_t kv_head) {
  Work w;
  w.rows = t.tokens * t.group;
  w.padded = round_up(w.rows, kLanes);
  w.wide = round_up(t.width, 16);
  w.keys = t.work;
  w.values = w.keys + kKeyBlock * w.wide;
  w.scores = w.values + kKeyBlock * w.wide;
  const int64_t own = (t.width + 5) * w.padded + w.rows * w.wide;
  w.sums = w.scores + kKeyBlock * w.padded + kv_head * own;
  w.queries = w.sums + w.rows * w.wide;
  w.top = w.queries + t.width * w.padded;
  w.mass = w.top + w.padded;
  w.factor = w.mass + w.padded;
  w.visible = reinterpret_cast<int32_t*>(w.factor + w.padded);
  w.first = w.visible + w.padded;
  return w;
}

void prepare(const AttentionRows& t, const Work& w, int64_t kv_head) {
  const float* heads = t.q + kv_head * t.group * t.width;
  for (int64_t r = 0; r < w.padded; r++) {
    const int64_t token = r < w.rows ? r / t.group : 0, head = r % t.group;
    const int64_t unseen = t.window ? t.visible[token] - t.window : 0;
    w.visible[r] = t.visible[token];
    w.first[r] = int32_t(unseen > 0 ? unseen : 0);
    w.top[r] = -__builtin_inff();
    w.mass[r] = 0;
    const float* q = heads + token * t.q_stride + head * t.width;
    for (int64_t e = 0; e < t.width; e++) w.queries[e * w.padded + r] = r < w.rows ? q[e] * t.scale : 0.f;
  }
  for (int64_t i = 0; i < w.rows * w.wide; i++) w.sums[i] = 0;
  for (int64_t i = 0; i < kKeyBlock * w.wide; i++) w.values[i] = 0;
}

void copy_row(float* to, const void* from, int64_t at, int64_t width, bool bf16) {
  if (!bf16) {
    std::memcpy(to, static_cast<const float*>(from) + at, size_t(width) * 4);
    return;
  }
  for (int64_t e = 0; e < width; e += kLanes) store(to + e, load_any(from, true, at + e, lanes_at(e, width)));
}

// Walks the pieces from key to key.
struct Cursor {
  const KeyPiece* piece;
  int64_t offset;

  void skip(int64_t keys) {
    for (offset += keys; offset > 0 && offset >= piece->count; piece++) offset -= piece->count;
  }

  int64_t next_row() {
    for (; offset >= piece->count; piece++) offset = 0;
    return piece->row + offset++;
  }
};

// Copies the keys and values of one kv head.
void copy_keys(const AttentionRows& t, const Work& w, Cursor from, int64_t count, int64_t kv_head) {
  for (int64_t j = 0; j < count; j++) {
    const int64_t at = from.next_row() * t.key_stride + kv_head * t.width;
    copy_row(w.keys + j * w.wide, t.k, at, t.width, t.bf16);
    copy_row(w.values + j * w.wide, t.v, at, t.width, t.bf16);
  }
}

// Starts loading keys that copy_keys would wait for. Inlined by force: GCC 12 takes a function that does no
// more than this for one without effect.
__attribute__((always_inline)) inline void prefetch_keys(const AttentionRows& t, Cursor from, int64_t count,
                                                         int64_t kv_head) {
  const int64_t element = t.bf16 ? 2 : 4;
  for (int64_t j = 0; j < count; j++) {
    const int64_t at = (from.next_row() * t.key_stride + kv_head * t.width) * element;
    for (int64_t byte = 0; byte < t.width * element; byte += 64) {
      __builtin_prefetch(static_cast<const char*>(t.k) + at + byte, 0, 2);
      __builtin_prefetch(static_cast<const char*>(t.v) + at + byte, 0, 2);
    }
  }
}

// Scores of keys start .. start + count - 1 become exp(score - top), for kLanes rows from `r` on.
template <bool masked>
void softmax(const Work& w, int64_t r, int64_t start, int64_t count) {
  float* scores = w.scores + r;
  const Vec before = load(w.top + r), none = splat(-__builtin_inff());
  VecI visible, first;
  std::memcpy(&visible, w.visible + r, sizeof visible);
  std::memcpy(&first, w.first + r, sizeof first);
  Vec top = before;
  for (int64_t j = 0; j < count; j++) {
    Vec s = load(scores + j * w.padded);
    if (masked) {
      const VecI key = splat_i(int32_t(start + j));
      s = select((key < visible) & (key >= first), s, none);
      store(scores + j * w.padded, s);
    }
    top = vmax(top, s);
  }
  const Vec base = select(top == none, splat(0.f), top);
  Vec mass = splat(0.f);
  for (int64_t j = 0; j < count; j++) {
    const Vec p = vexp_below(load(scores + j * w.padded) - base);
    store(scores + j * w.padded, p);
    mass += p;
  }
  const Vec factor = vexp_below(before - base);
  store(w.top + r, top);
  store(w.factor + r, factor);
  store(w.mass + r, load(w.mass + r) * factor + mass);
}

// Adds the keys of a block to what the rows of one kv head have seen.
void meet(const AttentionRows& t, const Work& w, int64_t start, int64_t count, bool masked) {
  multiply<Into::Store>(count, w.padded, t.width, {w.keys, w.wide, 1}, w.queries, w.padded, w.scores,
                        w.padded);
  for (int64_t r = 0; r < w.padded; r += kLanes)
    masked ? softmax<true>(w, r, start, count) : softmax<false>(w, r, start, count);
  multiply<Into::Scale>(w.rows, round_up(t.width, kLanes), count, {w.scores, 1, w.padded}, w.values, w.wide,
                        w.sums, w.wide, w.factor);
}

void finish(const AttentionRows& t, const Work& w, int64_t kv_head) {
  for (int64_t r = 0; r < w.padded; r += kLanes) {
    const Vec mass = load(w.mass + r);
    store(w.top + r, load(w.top + r) + vlog(mass));
    store(w.factor + r, splat(1.f) / mass);
  }
  for (int64_t r = 0; r < w.rows; r++) {
    const int64_t token = r / t.group, head = kv_head * t.group + r % t.group;
    float* out = t.out + token * t.q_stride + head * t.width;
    for (int64_t e = 0; e < t.width; e++) out[e] = w.sums[r * w.wide + e] * w.factor[r];
    if (t.lse) t.lse[token * t.lse_stride + head] = w.top[r];
  }
}

}  // namespace

void attend(const AttentionRows& t) {
  for (int64_t h = 0; h < t.kv_heads; h++) prepare(t, lay_out(t, h), h);
  const Work rows = lay_out(t, 0);
  int64_t begin = rows.first[0], all_from = begin, all_to = rows.visible[0], end = all_to;
  for (int64_t r = 1; r < rows.rows; r++) {
    const int64_t first = rows.first[r], visible = rows.visible[r];
    begin = first < begin ? first : begin;
    all_from = first > all_from ? first : all_from;
    all_to = visible < all_to ? visible : all_to;
    end = visible > end ? visible : end;
  }
  Cursor cursor{t.pieces, 0};
  int64_t start = begin / kKeyBlock * kKeyBlock;
  cursor.skip(start);
  for (; start < end; start += kKeyBlock) {
    const int64_t left = end - start, count = left < kKeyBlock ? left : kKeyBlock;
    Cursor next = cursor;
    next.skip(count);
    for (int64_t h = 0; h < t.kv_heads; h++) {
      const Work w = lay_out(t, h);
      copy_keys(t, w, cursor, count, h);
      prefetch_keys(t, next, left - count < kKeyBlock ? left - count : kKeyBlock, h);
      meet(t, w, start, count, start < all_from || start + count > all_to);
    }
    cursor = next;
  }
  for (int64_t h = 0; h < t.kv_heads; h++) finish(t, lay_out(t, h), h);
}

}  // namespace SDPO_ISA
}  // namespace sdpo
