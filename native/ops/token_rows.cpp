#include "ops/token_rows.h"

#include <algorithm>

namespace sdpo {
namespace {

struct Buffers {
  float *row, *gradient, *maxima;

  Buffers(Arena& arena, int64_t v)
      : row(arena.take<float>(v)),
        gradient(arena.take<float>(v)),
        maxima(arena.take<float>(maxima_count(v))) {}
};

void gradient(const TokenRows& all, int64_t i, const float* e, double sum, double slope, float* out) {
  const int64_t v = all.logits.v;
  if (slope == 0) {
    std::fill(out, out + v, 0.f);
  } else {
    combine(nullptr, 0, e, float(slope / sum), v, out);
    out[all.token_ids[i]] += float(slope);
  }
  all.dlogits.write(i, out);
}

}  // namespace

uint64_t token_slot_bytes(int64_t v) {
  Arena arena;
  [[maybe_unused]] const Buffers measured(arena, v);
  return arena.used();
}

void token_rows(const TokenRows& all, const TokenLoss& loss, void* scratch, uint64_t scratch_bytes) {
  const int64_t v = all.logits.v;
  for_rows(all.rows, scratch, scratch_bytes, token_slot_bytes(v), [&](int64_t i, void* slot) {
    Arena arena(slot);
    const Buffers buffers(arena, v);
    const float* z = all.logits.read(i, buffers.row);
    float* out = all.dlogits ? all.dlogits.target(i, buffers.gradient) : nullptr;
    float max;
    block_maxima(z, v, buffers.maxima, &max);
    const float z_token = z[all.token_ids[i]];
    double sum;
    const Softmax s = softmax_of({z, v, max, float(1 / all.temperature)}, {nullptr, 0, nullptr}, out, &sum);
    const double logprob = s.logprob(z_token);
    if (all.logprobs) all.logprobs[i] = float(logprob);
    if (all.lse) all.lse[i] = float(s.lse());
    if (all.entropy) all.entropy[i] = float(s.entropy);
    if (all.max) all.max[i] = max;
    if (!loss) return;
    const TokenTerm term = loss(i, logprob);
    const double weight = all.weights[i];
    if (all.token_loss) all.token_loss[i] = weight == 0 ? 0.f : float(weight * term.loss);
    if (!out) return;
    const double slope = weight == 0 ? 0 : weight * all.coefficients[i] * term.slope / all.temperature;
    gradient(all, i, out, s.sum, slope, out);
  });
}

}  // namespace sdpo
