// The numbers of a row, once its sums are known, and the gradient's columns.
#pragma once
#include "ops/distill_pair.cuh"

namespace sdpo {

// Everything a row's numbers are made of.
struct RowFacts {
  PairSums all;      // over every column
  PairSums support;  // over the columns that the divergence sees: `all`, or the chosen ones alone
  BucketSums buckets;
  float token_logit = 0, teacher_token_logit = 0;  // NaN where the token id is none
};

// gradient = p * (slope * d + offset), d by kind; Forward slope * (p - t); chosen columns of Tail by bucket.
// Reverse: d is relative to its mean `center`, for p near 1 leaves little of both. In zero rows it is 0
// whatever the logits.
struct Factors {
  bool zero;
  float slope, offset, scale, coefficient, center;
};

DEV_INLINE float mass_of(const RowSums& part, const RowSums& all, float scale) {
  return part.sum * exp2_fast(base_shift(part.max, all.max, scale)) / all.sum;
}

struct RowLoss {
  float loss, coefficient, kl, tail;  // coefficient: sum of c; tail: c / P of the tail
};

// The tail's bucket is added here; what is under the floor has no gradient.
DEV_INLINE RowLoss tail_loss(const DistillCall& call, const BucketSums& b) {
  constexpr float floor = float(kTailFloor);
  const float p = fmaxf(b.rest, floor), t = fmaxf(b.teacher_rest, floor);
  const Bucket rest = bucket_of(call, p, t, log2f(p), log2f(t));
  const bool floored = b.rest < floor;
  return {b.loss + rest.loss, b.coefficient + (floored ? 0 : rest.coefficient), b.kl + rest.kl,
          floored ? 0 : rest.coefficient / p};
}

template <Kind kind>
DEV_INLINE RowLoss row_loss(const DistillCall& call, const RowFacts& facts, const PairSoftmax& support) {
  const float gap = support.teacher.log_sum - support.student.log_sum;
  const float kl = kLn2 * (facts.support.reverse * support.student.inv_sum + gap);
  const BucketSums& b = facts.buckets;
  if (kind == Kind::Tail) return tail_loss(call, b);
  if (kind == Kind::Forward)
    return {kLn2 * (facts.support.forward * support.teacher.inv_sum - gap), -1, kl, 0};
  if (kind == Kind::Reverse) return {kl, 1 + kl, kl, 0};
  return {b.loss, b.coefficient, kl, 0};
}

// The loss of the sampled token; coefficient is its slope.
DEV_INLINE RowLoss token_loss(const DistillCall& call, int64_t row, float logprob, float teacher_logprob) {
  const float c = call.advantage_clip, gap = teacher_logprob - logprob;
  float advantage = gap < -c ? -c : gap > c ? c : gap;
  if (call.credit == Credit::Sequence) advantage = call.advantages ? call.advantages[row] : 0.f;
  return {-advantage * logprob, -advantage, -gap, 0};
}

template <Kind kind>
DEV_INLINE Factors factors_of(const DistillCall& call, const RowLoss& loss, float scale) {
  Factors f{scale == 0, scale, 0, scale, loss.coefficient, 0};
  if (kind == Kind::Token) {
    f.slope = scale * loss.coefficient;
    f.offset = -f.slope;
  } else if (kind == Kind::Tail) {
    f.offset = -scale * (loss.coefficient - loss.tail);
  } else if (kind != Kind::Forward) {
    f.slope = scale * kLn2 * (kind == Kind::Jsd ? 1 - call.alpha : 1.f);
    if (kind != Kind::Reverse) f.offset = -scale * loss.coefficient;
  }
  return f;
}

// Writes the row's outputs (where `write`) and returns what its gradient needs. One thread.
template <Kind kind>
DEV_INLINE Factors finish_row(const DistillCall& call, const RowFacts& facts, int64_t row, bool write) {
  const PairSoftmax all(facts.all, call.scale), support(facts.support, call.scale);
  const bool known = unsigned(call.token_ids[row]) < unsigned(call.v);
  const float logprob = all.student.logprob(facts.token_logit);
  const float teacher_logprob = all.teacher.logprob(facts.teacher_token_logit);
  float ratio = 1;
  if (call.old_logprobs) {
    const float gap = logprob - call.old_logprobs[row];
    ratio = expf(gap < -20 ? -20 : gap > 20 ? 20 : gap);
  }
  const float given = call.weights[row];
  float weight = isinf(call.is_clip) ? given : given * (ratio > call.is_clip ? call.is_clip : ratio);
  RowLoss loss = kind == Kind::Token ? token_loss(call, row, logprob, teacher_logprob)
                                     : row_loss<kind>(call, facts, support);
  const bool lost = kind != Kind::Token && all.is_nan();
  if (lost) loss.loss = loss.coefficient = NAN;
  float scale = given == 0 ? 0 : weight * call.coefficients[row] / call.temperature;
  if (!known) weight = scale = NAN;
  if (write) {
    float mass = 1, teacher_mass = 1;
    if (kind == Kind::Tail) {
      mass = 1 - facts.buckets.rest;
      teacher_mass = 1 - facts.buckets.teacher_rest;
    } else if (call.top_k) {
      mass = mass_of(facts.support.student, facts.all.student, call.scale);
      teacher_mass = mass_of(facts.support.teacher(), facts.all.teacher(), call.scale);
    }
    const float values[kDistillOutputs] = {known && given == 0 ? 0 : loss.loss * weight,
                                           logprob,
                                           teacher_logprob,
                                           all.student.lse(),
                                           all.teacher.lse(),
                                           all.student.entropy(),
                                           loss.kl,
                                           ratio,
                                           mass,
                                           teacher_mass};
    for (int i = 0; i < kDistillOutputs; i++) call.out[i][row] = known ? values[i] : NAN;
  }
  Factors factors = factors_of<kind>(call, loss, scale);
  factors.center = facts.support.reverse / facts.support.student.sum;
  if (lost) factors.offset = NAN;
  return factors;
}

// Eight columns of the gradient, from the logits z and y. `token` is this row's token id.
template <Kind kind>
DEV_INLINE void gradient_group(const DistillCall& call, const PairSoftmax& softmax, const Factors& f,
                               const Chosen& chosen, int column, int token, const float (&z)[kGroup],
                               const float (&y)[kGroup], float (&out)[kGroup]) {
  const float clip = call.advantage_clip * kLog2e;
  for (int j = 0; j < kGroup; j++) {
    const float x = softmax.student.exponent(z[j]), a = x - softmax.student.log_sum, p = exp2_fast(a);
    if (kind == Kind::Token) {
      out[j] = p * f.offset + (column + j == token ? f.slope : 0);
      continue;
    }
    const float b = kind == Kind::Tail ? 0 : softmax.teacher.log2_of(y[j]);
    if (kind == Kind::Forward) {
      out[j] = f.slope * (p - exp2_fast(b)) + f.offset;
    } else if (kind == Kind::Tail) {
      out[j] = p * f.offset;
      if (chosen.has(z[j], column + j, call.v)) {
        const float log2_t = softmax.teacher.log2_of(y[j]);
        const Bucket bucket = bucket_of(call, p, exp2_fast(log2_t), a, log2_t);
        out[j] = f.scale * (bucket.coefficient - p * f.coefficient);
      }
    } else {
      float d;
      if (kind == Kind::Reverse) d = p > 0 ? x - softmax.teacher.exponent(y[j]) - f.center : 0;
      if (kind == Kind::Clipped) d = p > 0 ? fminf(fmaxf(a - b, -clip), clip) : 0;
      if (kind == Kind::Jsd) d = fmaxf(a, kLeastLog2) - log2_mixture(p, exp2_fast(b), call.alpha);
      out[j] = p * (f.slope * d + f.offset);
    }
  }
}

// The gradient of a slice; writes over the logits in place where they are the same memory.
template <Kind kind, class Pair>
DEV_INLINE void write_gradient(const DistillCall& call, const Pair& pair, const PairSoftmax& softmax,
                               const Factors& f, const Chosen& chosen, int token) {
  for (int group = threadIdx.x; group < pair.slice.groups; group += blockDim.x) {
    float z[kGroup], y[kGroup], out[kGroup];
    if (kind == Kind::Token)
      pair.read_student(group, z);
    else
      pair.read(group, z, y);
    if (f.zero) {
      for (int j = 0; j < kGroup; j++) out[j] = 0;
    } else {
      gradient_group<kind>(call, softmax, f, chosen, pair.slice.first + kGroup * group, token, z, y, out);
    }
    write_group(call.dlogits, pair.slice, group, out);
  }
}

}  // namespace sdpo
