#include "ops/attention_bwd.h"

#include "ops/attention_tile.h"

namespace sdpo {
namespace SDPO_ISA {
namespace {

constexpr int64_t kQ = kBackwardQueries;

// Scores lie transposed, as in the forward kernel: a lane is a query.
struct Work {
  int64_t wide, columns, padded;
  float *q, *dout, *dq;           // [kQ,wide]; q is scaled
  float *q_across, *dout_across;  // [width,kQ]
  float *p, *ds;                  // [kBackwardKeys,kQ]
  float *lse, *mean;              // [kQ]; mean: sum_e dout_e out_e
};

Work lay_out(const QueryBlock& b) {
  Work w;
  w.wide = round_up(b.width, 16);
  w.columns = round_up(b.width, kLanes);
  w.padded = round_up(b.count, kLanes);
  const int64_t rows = kQ * w.wide, scores = kBackwardKeys * kQ;
  w.q = b.work;
  w.dout = w.q + rows;
  w.dq = w.dout + rows;
  w.q_across = w.dq + rows;
  w.dout_across = w.q_across + rows;
  w.p = w.dout_across + rows;
  w.ds = w.p + scores;
  w.lse = w.ds + scores;
  w.mean = w.lse + kQ;
  return w;
}

// P^T and dS^T in place of the scores and dP^T, for kLanes queries from `r` on.
template <bool masked>
void weights(const QueryBlock& b, const KeyBlock& keys, const Work& w, int64_t r) {
  const Vec lse = load(w.lse + r), mean = load(w.mean + r);
  // Key j is visible to lane i iff j <= last[i] and j > last[i] - window.
  VecI last = splat_i(int32_t(b.position + r - keys.position));
  for (int i = 0; i < kLanes; i++) last[i] += i;
  const VecI first = last - splat_i(b.window ? int32_t(b.window) : 0) + 1;
  for (int64_t j = 0; j < keys.count; j++) {
    float *p_at = w.p + j * kQ + r, *ds_at = w.ds + j * kQ + r;
    Vec p = vexp_below(vmin(splat(0.f), load(p_at) - lse));
    if (masked) {
      const VecI key = splat_i(int32_t(j));
      VecI seen = key <= last;
      if (b.window) seen &= key >= first;
      p = select(seen, p, splat(0.f));
    }
    store(p_at, p);
    store(ds_at, p * (load(ds_at) - mean));
  }
}

}  // namespace

void backward_begin(const QueryBlock& b) {
  const Work w = lay_out(b);
  for (int64_t i = 0; i < kQ * w.wide; i++) w.q[i] = w.dout[i] = w.dq[i] = 0;
  for (int64_t i = 0; i < b.width * kQ; i++) w.q_across[i] = w.dout_across[i] = 0;
  for (int64_t r = 0; r < w.padded; r++) {
    w.lse[r] = w.mean[r] = 0;
    if (r >= b.count) continue;
    const float *q = b.q + r * b.q_stride, *out = b.out + r * b.q_stride, *dout = b.dout + r * b.q_stride;
    float mean = 0;
    for (int64_t e = 0; e < b.width; e++) {
      w.q[r * w.wide + e] = w.q_across[e * kQ + r] = q[e] * b.scale;
      w.dout[r * w.wide + e] = w.dout_across[e * kQ + r] = dout[e];
      mean += out[e] * dout[e];
    }
    w.mean[r] = mean;
    w.lse[r] = b.lse[r * b.lse_stride];
  }
}

void backward_step(const QueryBlock& b, const KeyBlock& keys) {
  const Work w = lay_out(b);
  const int64_t count = keys.count;
  multiply<Into::Store>(count, w.padded, b.width, {keys.k, w.wide, 1}, w.q_across, kQ, w.p, kQ);
  multiply<Into::Store>(count, w.padded, b.width, {keys.v, w.wide, 1}, w.dout_across, kQ, w.ds, kQ);
  const int64_t last_query = b.position + b.count - 1;
  const bool masked =
      keys.position + count - 1 > b.position || (b.window && keys.position <= last_query - b.window);
  for (int64_t r = 0; r < w.padded; r += kLanes)
    masked ? weights<true>(b, keys, w, r) : weights<false>(b, keys, w, r);
  multiply<Into::Add>(count, w.columns, b.count, {w.p, kQ, 1}, w.dout, w.wide, keys.dv, w.wide);
  multiply<Into::Add>(count, w.columns, b.count, {w.ds, kQ, 1}, w.q, w.wide, keys.dk, w.wide);
  multiply<Into::Add>(b.count, w.columns, count, {w.ds, 1, kQ}, keys.k, w.wide, w.dq, w.wide);
}

void backward_end(const QueryBlock& b) {
  const Work w = lay_out(b);
  for (int64_t r = 0; r < b.count; r++)
    for (int64_t e = 0; e < b.width; e++) b.dq[r * b.q_stride + e] = w.dq[r * w.wide + e] * b.scale;
}

}  // namespace SDPO_ISA
}  // namespace sdpo
