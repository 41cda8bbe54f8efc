#include "ops/attention_rows.h"

#include "ops/attention_tile.h"

namespace sdpo {
namespace SDPO_ISA {
namespace {

// Queries and scores lie transposed: a lane is a row (token, head), so that softmax needs no sum across
// lanes.
struct Work {
  int64_t rows, padded, wide;
  float *queries, *scores, *keys, *values,
      *sums;                   // [width,padded] [kKeyBlock,padded] 2 x [kKeyBlock,wide] [rows,wide]
  float *top, *mass, *factor;  // [padded]
  int32_t *visible, *first;    // [padded]: keys first .. visible - 1
};

Work lay_out(const AttentionRows& t) {
  Work w;
  w.rows = t.tokens * t.group;
  w.padded = round_up(w.rows, kLanes);
  w.wide = round_up(t.width, 16);
  float* at = t.work;
  const auto take = [&](int64_t floats) {
    float* from = at;
    at += floats;
    return from;
  };
  w.keys = take(kKeyBlock * w.wide);
  w.values = take(kKeyBlock * w.wide);
  w.sums = take(w.rows * w.wide);
  w.queries = take(t.width * w.padded);
  w.scores = take(kKeyBlock * w.padded);
  w.top = take(w.padded);
  w.mass = take(w.padded);
  w.factor = take(w.padded);
  w.visible = reinterpret_cast<int32_t*>(take(w.padded));
  w.first = reinterpret_cast<int32_t*>(take(w.padded));
  return w;
}

void prepare(const AttentionRows& t, const Work& w) {
  for (int64_t r = 0; r < w.padded; r++) {
    const int64_t token = r < w.rows ? r / t.group : 0, head = r % t.group;
    const int64_t unseen = t.window ? t.visible[token] - t.window : 0;
    w.visible[r] = t.visible[token];
    w.first[r] = int32_t(unseen > 0 ? unseen : 0);
    w.top[r] = -__builtin_inff();
    w.mass[r] = 0;
    const float* q = t.q + token * t.q_stride + head * t.width;
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

  void copy(const AttentionRows& t, const Work& w, int64_t count) {
    for (int64_t j = 0; j < count; j++, offset++) {
      for (; offset >= piece->count; piece++) offset = 0;
      const int64_t at = (piece->row + offset) * t.key_stride;
      copy_row(w.keys + j * w.wide, t.k, at, t.width, t.bf16);
      copy_row(w.values + j * w.wide, t.v, at, t.width, t.bf16);
    }
  }
};

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
    const Vec p = vexp(load(scores + j * w.padded) - base);
    store(scores + j * w.padded, p);
    mass += p;
  }
  const Vec factor = vexp(before - base);
  store(w.top + r, top);
  store(w.factor + r, factor);
  store(w.mass + r, load(w.mass + r) * factor + mass);
}

void finish(const AttentionRows& t, const Work& w) {
  for (int64_t r = 0; r < w.padded; r += kLanes) {
    const Vec mass = load(w.mass + r);
    store(w.top + r, load(w.top + r) + vlog(mass));
    store(w.factor + r, splat(1.f) / mass);
  }
  for (int64_t r = 0; r < w.rows; r++) {
    const int64_t token = r / t.group, head = r % t.group;
    float* out = t.out + token * t.q_stride + head * t.width;
    for (int64_t e = 0; e < t.width; e++) out[e] = w.sums[r * w.wide + e] * w.factor[r];
    if (t.lse) t.lse[token * t.lse_stride + head] = w.top[r];
  }
}

}  // namespace

void attend(const AttentionRows& t) {
  const Work w = lay_out(t);
  prepare(t, w);
  int32_t begin = w.first[0], all_from = w.first[0], all_to = w.visible[0], end = w.visible[0];
  for (int64_t r = 1; r < w.rows; r++) {
    if (w.first[r] < begin) begin = w.first[r];
    if (w.first[r] > all_from) all_from = w.first[r];
    if (w.visible[r] < all_to) all_to = w.visible[r];
    if (w.visible[r] > end) end = w.visible[r];
  }
  const int64_t columns = round_up(t.width, kLanes);
  Cursor cursor{t.pieces, 0};
  int64_t start = begin / kKeyBlock * kKeyBlock;
  cursor.skip(start);
  for (; start < end; start += kKeyBlock) {
    const int64_t count = end - start < kKeyBlock ? end - start : kKeyBlock;
    cursor.copy(t, w, count);
    multiply<Into::Store>(count, w.padded, t.width, {w.keys, w.wide, 1}, w.queries, w.padded, w.scores,
                          w.padded);
    const bool masked = start < all_from || start + count > all_to;
    for (int64_t r = 0; r < w.padded; r += kLanes)
      masked ? softmax<true>(w, r, start, count) : softmax<false>(w, r, start, count);
    multiply<Into::Scale>(w.rows, columns, count, {w.scores, 1, w.padded}, w.values, w.wide, w.sums, w.wide,
                          w.factor);
  }
  finish(t, w);
}

}  // namespace SDPO_ISA
}  // namespace sdpo
