// The token loss of a row pair on a GPU, in steps that the kernels of distill_loss are made of:
//   pair_sums: softmax sums of both rows and the KLs    bucket_sums: what needs normalised masses (JSD, the
//   clipped KL, the tail)    finish_row: the row's numbers    gradient_group: eight columns of the gradient
// Logs and exponentials of a student/teacher pair: 2 in pair_sums; 3 in bucket_sums (JSD: p, t, log2 m);
// 2 for the gradient (JSD 3), so forward and reverse KL take 4 and JSD 8.
#pragma once
#include "ops/distill_options.h"
#include "ops/loss_rows.cuh"

namespace sdpo {

// What the gradient is: a divergence over all columns (or the chosen ones alone), with a tail, or of a token.
enum class Kind { Forward, Reverse, Jsd, Clipped, Tail, Token };

struct DistillCall {
  Logits student, teacher, initial, dlogits;
  const int32_t* token_ids;
  const float *weights, *coefficients, *old_logprobs, *advantages;
  float* out[kDistillOutputs];
  int v, top_k;  // top_k 0: all
  Credit credit;
  Kind divergence;                             // of the buckets
  float scale, alpha, teacher_rate;            // scale = log2(e) / temperature
  float temperature, is_clip, advantage_clip;  // clips are infinite where there are none
};

// The top K: columns whose student logit is above `value`, or equal to it up to column `last`.
struct Chosen {
  float value;
  int last;
  DEV_INLINE bool has(float z, int column, int v) const {
    return z >= value && unsigned(column) < unsigned(v) && (z > value || column <= last);
  }
};

DEV_INLINE float mix(float initial, float teacher, float rate) {
  return (1 - rate) * initial + rate * teacher;
}

// A slice of both rows in shared memory, padded with -inf.
template <class T>
struct SharedPair {
  const T *student, *teacher, *initial;
  Slice slice;
  float rate;

  DEV_INLINE void read_student(int group, float (&x)[kGroup]) const {
    load_group(student + kGroup * group, x);
  }
  DEV_INLINE void read(int group, float (&x)[kGroup], float (&y)[kGroup]) const {
    read_student(group, x);
    load_group(teacher + kGroup * group, y);
    if (!initial) return;
    float first[kGroup];
    load_group(initial + kGroup * group, first);
    for (int j = 0; j < kGroup; j++) y[j] = mix(first[j], y[j], rate);
  }
};

// A slice of both rows in global memory; with `only`, columns that are not chosen read as -inf.
struct GlobalPair {
  Logits student, teacher, initial;
  Slice slice;
  float rate;
  const Chosen* only;

  DEV_INLINE void read_student(int group, float (&x)[kGroup]) const { read_group(student, slice, group, x); }
  DEV_INLINE void read(int group, float (&x)[kGroup], float (&y)[kGroup]) const {
    read_student(group, x);
    read_group(teacher, slice, group, y);
    if (initial.data) {
      float first[kGroup];
      read_group(initial, slice, group, first);
      for (int j = 0; j < kGroup; j++) y[j] = mix(first[j], y[j], rate);
    }
    if (!only) return;
    for (int j = 0; j < kGroup; j++)
      if (!only->has(x[j], slice.first + kGroup * group + j, slice.v)) x[j] = y[j] = -INFINITY;
  }
};

// Softmax sums of both rows. With x, y the exponents of student and teacher:
// reverse = sum of 2^x (x - y), forward = sum of 2^y (y - x).
struct PairSums {
  RowSums student;
  float teacher_max = -INFINITY, teacher_sum = 0, reverse = 0, forward = 0;

  DEV_INLINE void move_to(float student_max, float max, float scale) {
    const float down = base_shift(student.max, student_max, scale);
    const float teacher_down = base_shift(teacher_max, max, scale);
    const float factor = exp2_fast(teacher_down);
    reverse = exp2_fast(down) * (reverse + student.sum * (down - teacher_down));
    forward = factor * (forward + teacher_sum * (teacher_down - down));
    teacher_sum *= factor;
    teacher_max = max;
    student.move_to(student_max, scale);
  }
  DEV_INLINE void merge(PairSums other, float scale) {
    const float most = fmaxf(student.max, other.student.max), top = fmaxf(teacher_max, other.teacher_max);
    move_to(most, top, scale);
    other.move_to(most, top, scale);
    student.sum += other.student.sum;
    student.weighted += other.student.weighted;
    teacher_sum += other.teacher_sum;
    reverse += other.reverse;
    forward += other.forward;
  }
  DEV_INLINE PairSums of_lane(int mask) const {
    PairSums other;
    other.student = student.of_lane(mask);
    other.teacher_max = __shfl_xor_sync(~0u, teacher_max, mask);
    other.teacher_sum = __shfl_xor_sync(~0u, teacher_sum, mask);
    other.reverse = __shfl_xor_sync(~0u, reverse, mask);
    other.forward = __shfl_xor_sync(~0u, forward, mask);
    return other;
  }
  DEV_INLINE RowSums teacher() const {
    RowSums sums;
    sums.max = teacher_max;
    sums.sum = teacher_sum;
    return sums;
  }
};

// This thread's columns. The KLs only where they are the loss or asked for.
template <bool kReverse, bool kForward, class Pair>
DEV_INLINE PairSums pair_sums(const Pair& pair, float scale) {
  PairSums s;
  for (int group = threadIdx.x; group < pair.slice.groups; group += blockDim.x) {
    float z[kGroup], y[kGroup];
    pair.read(group, z, y);
    const float most = fmaxf(max_of(z), s.student.max), top = fmaxf(max_of(y), s.teacher_max);
    if (most > s.student.max || top > s.teacher_max) s.move_to(most, top, scale);
    const float base = base_of(most, scale), teacher_base = base_of(top, scale);
    for (int j = 0; j < kGroup; j++) {
      const float a = fmaf(z[j], scale, -base), b = fmaf(y[j], scale, -teacher_base);
      const float e = exp2_fast(a), f = exp2_fast(b);
      s.student.sum += e;
      s.teacher_sum += f;
      if (e > 0) {
        s.student.weighted += e * a;
        if (kReverse) s.reverse += e * (a - b);
      }
      if (kForward && f > 0) s.forward += f * (b - a);
    }
  }
  return s;
}

// Both softmaxes; log2_pair gives the logs of one column's masses.
struct PairSoftmax {
  RowSoftmax student, teacher;
  DEV_INLINE PairSoftmax(const PairSums& s, float scale)
      : student(s.student, scale), teacher(s.teacher(), scale) {}
  DEV_INLINE bool is_nan() const { return isnan(student.log_sum) || isnan(teacher.log_sum); }
};

constexpr float kLeastLog2 = -160.f;  // its exponential is 0

// log2 of the mixture of two masses, finite where both are 0.
DEV_INLINE float log2_mixture(float p, float t, float alpha) {
  return log2_fast(fmaf(1 - alpha, p, fmaf(alpha, t, 1e-37f)));
}

// A bucket's share of the divergence, c = d loss / d log P, and of KL(P || T).
struct Bucket {
  float loss, coefficient, kl;
};
DEV_INLINE Bucket bucket_of(const DistillCall& call, float p, float t, float log2_p, float log2_t) {
  const float gap = kLn2 * (log2_p - log2_t), kl = p > 0 ? p * gap : 0.f;
  if (call.divergence == Kind::Forward) return {t > 0 ? -t * gap : 0.f, -t, kl};
  if (call.divergence == Kind::Reverse) return {kl, p + kl, kl};
  if (call.divergence == Kind::Clipped) {
    const float c = call.advantage_clip, cut = p > 0 ? p * (gap < -c ? -c : gap > c ? c : gap) : 0.f;
    return {cut, cut, kl};
  }
  const float lp = fmaxf(log2_p, kLeastLog2), lt = fmaxf(log2_t, kLeastLog2);
  const float lm = log2_mixture(p, t, call.alpha);
  const float coefficient = kLn2 * (1 - call.alpha) * p * (lp - lm);
  return {coefficient + kLn2 * call.alpha * t * (lt - lm), coefficient, kl};
}

// Sums over buckets, and the masses outside the top K.
struct BucketSums {
  float loss = 0, coefficient = 0, kl = 0, rest = 0, teacher_rest = 0;

  DEV_INLINE void merge(const BucketSums& other, float) {
    loss += other.loss;
    coefficient += other.coefficient;
    kl += other.kl;
    rest += other.rest;
    teacher_rest += other.teacher_rest;
  }
  DEV_INLINE BucketSums of_lane(int mask) const {
    BucketSums other;
    other.loss = __shfl_xor_sync(~0u, loss, mask);
    other.coefficient = __shfl_xor_sync(~0u, coefficient, mask);
    other.kl = __shfl_xor_sync(~0u, kl, mask);
    other.rest = __shfl_xor_sync(~0u, rest, mask);
    other.teacher_rest = __shfl_xor_sync(~0u, teacher_rest, mask);
    return other;
  }
};

// This thread's columns; kinds Jsd, Clipped and Tail.
template <Kind kind, class Pair>
DEV_INLINE BucketSums bucket_sums(const DistillCall& call, const Pair& pair, const PairSoftmax& softmax,
                                  const Chosen& chosen) {
  BucketSums sums;
  float student = 0, teacher = 0;
  const float clip = call.advantage_clip * kLog2e;
  for (int group = threadIdx.x; group < pair.slice.groups; group += blockDim.x) {
    float z[kGroup], y[kGroup];
    pair.read(group, z, y);
    for (int j = 0; j < kGroup; j++) {
      const float a = softmax.student.log2_of(z[j]), b = softmax.teacher.log2_of(y[j]);
      const float p = exp2_fast(a);
      if (kind == Kind::Clipped) {
        if (p > 0) student += p * fminf(fmaxf(a - b, -clip), clip);
        continue;
      }
      const float t = exp2_fast(b);
      if (kind == Kind::Jsd) {
        const float mixture = log2_mixture(p, t, call.alpha);
        student += p * (fmaxf(a, kLeastLog2) - mixture);
        teacher += t * (fmaxf(b, kLeastLog2) - mixture);
      } else if (chosen.has(z[j], pair.slice.first + kGroup * group + j, pair.slice.v)) {
        const Bucket bucket = bucket_of(call, p, t, a, b);
        sums.loss += bucket.loss;
        sums.coefficient += bucket.coefficient;
        sums.kl += bucket.kl;
      } else {
        sums.rest += p;
        sums.teacher_rest += t;
      }
    }
  }
  if (kind == Kind::Jsd) {
    sums.coefficient = kLn2 * (1 - call.alpha) * student;
    sums.loss = sums.coefficient + kLn2 * call.alpha * teacher;
  } else if (kind == Kind::Clipped) {
    sums.loss = sums.coefficient = kLn2 * student;
  }
  return sums;
}

}  // namespace sdpo
