#include <algorithm>
#include <limits>

#include "ops/distill_loss.h"

namespace sdpo {
namespace {

struct Buffers {
  float *student, *teacher, *e, *c, *maxima;  // rows as f32 where they must be made; exponentials
  TopK* top = nullptr;
  int32_t* ids;
  float *e_student, *e_teacher, *x, *y, *a, *b;  // of the top K, and one for the tail

  Buffers(Arena& arena, int64_t v)
      : student(arena.take<float>(v)),
        teacher(arena.take<float>(v)),
        e(arena.take<float>(v)),
        c(arena.take<float>(v)),
        maxima(arena.take<float>(maxima_count(v))) {}
  void take_top(Arena& arena, int64_t k) {
    ids = arena.take<int32_t>(k);
    for (float** small : {&e_student, &e_teacher, &x, &y, &a, &b}) *small = arena.take<float>(k + 1);
  }
};

// What the gradient of a row is made of: dL/dz_v = c_v - p_v * c_sum, times the row's factor.
struct LogitTerms {
  double loss, kl, c_sum;
  double tail = 0;  // c_tail / P_tail
  double p_scale;   // p_v = e_v * p_scale
};

// One row at a time; everything that its methods share.
class Row {
 public:
  Row(const DistillRows& all, const DistillOptions& options, int64_t i, Buffers& buffers)
      : all_(all), o_(options), i_(i), v_(all.student.v), buf_(buffers) {}

  void run() {
    read();
    softmaxes();
    const int32_t id = all_.token_ids[i_];
    const double logprob = student_.logprob(z_id_), teacher_logprob = teacher_.logprob(y_id_);
    double ratio = 1;
    if (all_.old_logprobs) ratio = std::exp(std::clamp(logprob - all_.old_logprobs[i_], -20.0, 20.0));
    const double weight = all_.weights[i_] * (std::isnan(o_.is_clip) ? 1
                                              : ratio > o_.is_clip   ? o_.is_clip
                                                                     : ratio);
    const bool masked = all_.weights[i_] == 0;
    const double scale = masked ? 0 : weight * all_.coefficients[i_] / o_.temperature;
    double loss, kl;
    if (o_.credit == Credit::Logit) {
      const LogitTerms terms = with_nan(o_.top_k ? top_terms() : full_terms());
      loss = terms.loss;
      kl = terms.kl;
      if (all_.dlogits) scale == 0 ? no_gradient() : logit_gradient(terms, scale);
    } else {
      const double advantage = token_advantage(logprob, teacher_logprob);
      loss = -advantage * logprob;
      kl = logprob - teacher_logprob;
      if (all_.dlogits) scale == 0 ? no_gradient() : token_gradient(id, -advantage * scale);
    }
    put(kTokenLoss, masked ? 0 : loss * weight);
    put(kStudentLogprobs, logprob);
    put(kTeacherLogprobs, teacher_logprob);
    put(kStudentLse, student_.lse());
    put(kTeacherLse, teacher_.lse());
    put(kEntropy, student_.entropy);
    put(kKl, kl);
    put(kRatio, ratio);
    put(kStudentTopkMass, top_count_ < 0 ? 1 : 1 - student_rest_ / student_.sum);
    put(kTeacherTopkMass, top_count_ < 0 ? 1 : 1 - teacher_rest_ / teacher_.sum);
  }

 private:
  void put(DistillOutput what, double value) const { all_.out[what][i_] = float(value); }
  float inv_temperature() const { return float(1 / o_.temperature); }
  bool whole_support() const { return o_.credit == Credit::Logit && !o_.top_k; }

  void read() {
    z_ = all_.student.read(i_, buf_.student);
    y_ = all_.teacher.read(i_, buf_.teacher);
    if (!all_.initial || o_.teacher_rate == 1) return;
    const float* first = all_.initial.read(i_, buf_.c);
    if (o_.teacher_rate == 0) {
      std::copy(first, first + v_, buf_.teacher);
    } else {
      mix_rows(first, y_, float(o_.teacher_rate), v_, buf_.teacher);
    }
    y_ = buf_.teacher;
  }

  // The student's exponentials go where the gradient will be, if nothing reads the logits after them.
  void softmaxes() {
    const int32_t id = all_.token_ids[i_];
    z_id_ = z_[id];
    y_id_ = y_[id];
    const bool whole = whole_support();
    float* e = whole ? buf_.e : all_.dlogits ? all_.dlogits.target(i_, buf_.e) : nullptr;
    block_maxima(y_, v_, buf_.maxima, &y_max_);
    block_maxima(z_, v_, buf_.maxima, &z_max_);
    LeftOut student{nullptr, 0, nullptr}, teacher = student;
    if (o_.top_k) {
      top_count_ = o_.top_k;
      if (buf_.top)
        top_count_ = buf_.top->select(z_, buf_.maxima, buf_.ids);
      else
        for (int64_t j = 0; j < v_; j++) buf_.ids[j] = int32_t(j);
      for (int64_t j = 0; j < top_count_; j++) {
        buf_.x[j] = z_[buf_.ids[j]];
        buf_.y[j] = y_[buf_.ids[j]];
      }
      student = {buf_.ids, top_count_, buf_.e_student};
      teacher = {buf_.ids, top_count_, buf_.e_teacher};
    }
    e_ = e;
    student_ = softmax_of({z_, v_, z_max_, inv_temperature()}, student, e, &student_rest_);
    teacher_ =
        softmax_of({y_, v_, y_max_, inv_temperature()}, teacher, whole ? buf_.c : nullptr, &teacher_rest_);
  }

  Divergence kind() const {
    if (!std::isnan(o_.advantage_clip)) return Divergence::ClippedReverse;
    return o_.alpha == 0 ? Divergence::Forward : o_.alpha == 1 ? Divergence::Reverse : Divergence::Jsd;
  }

  LogitTerms sums_of(BucketRow row, float* c) const {
    row.kind = kind();
    row.alpha = float(o_.alpha);
    row.clip = float(o_.advantage_clip);
    BucketSums sums;
    divergence(row, c, &sums);
    LogitTerms terms;
    terms.loss = sums.loss;
    terms.kl = sums.kl;
    terms.c_sum = sums.coefficient;
    terms.p_scale = row.a_scale;
    return terms;
  }

  BucketRow buckets(const float* a, const float* b, const float* x, const float* y, int64_t n,
                    const Softmax& student, const Softmax& teacher) const {
    BucketRow row{};
    row.a = a;
    row.b = b;
    row.x = x;
    row.y = y;
    row.n = n;
    row.a_scale = float(1 / student.sum);
    row.b_scale = float(1 / teacher.sum);
    row.x_max = float(student.max);
    row.y_max = float(teacher.max);
    row.inv_temperature = inv_temperature();
    row.shift = float(student.log_sum - teacher.log_sum);
    return row;
  }

  LogitTerms full_terms() { return sums_of(buckets(buf_.e, buf_.c, z_, y_, v_, student_, teacher_), buf_.c); }
  LogitTerms top_terms() { return o_.tail ? tail_terms() : renormalised_terms(); }

  // The top K as a vocabulary of their own. a and b end as p / p_scale and c.
  LogitTerms renormalised_terms() {
    const int64_t k = top_count_;
    const float inf = std::numeric_limits<float>::infinity();
    float x_max = -inf, y_max = -inf;
    for (int64_t j = 0; j < k; j++) {
      x_max = std::max(x_max, buf_.x[j]);
      y_max = std::max(y_max, buf_.y[j]);
    }
    double rest;
    const LeftOut none{nullptr, 0, nullptr};
    const Softmax s = softmax_of({buf_.x, k, x_max, inv_temperature()}, none, buf_.a, &rest);
    const Softmax t = softmax_of({buf_.y, k, y_max, inv_temperature()}, none, buf_.b, &rest);
    return sums_of(buckets(buf_.a, buf_.b, buf_.x, buf_.y, k, s, t), buf_.b);
  }

  // The top K and a bucket for the rest; a and b end as P and c.
  LogitTerms tail_terms() {
    const int64_t k = top_count_;
    for (int64_t j = 0; j < k; j++) {
      buf_.a[j] = float(buf_.e_student[j] / student_.sum);
      buf_.b[j] = float(buf_.e_teacher[j] / teacher_.sum);
      buf_.x[j] = float(student_.logprob(buf_.x[j]));
      buf_.y[j] = float(teacher_.logprob(buf_.y[j]));
    }
    const double student_tail = student_rest_ / student_.sum, teacher_tail = teacher_rest_ / teacher_.sum;
    const bool floored = student_tail < kTailFloor;
    const double p = std::max(student_tail, kTailFloor), t = std::max(teacher_tail, kTailFloor);
    buf_.a[k] = float(p);
    buf_.b[k] = float(t);
    buf_.x[k] = float(std::log(p));
    buf_.y[k] = float(std::log(t));
    BucketRow row = buckets(buf_.a, buf_.b, buf_.x, buf_.y, k + 1, student_, teacher_);
    row.a_scale = row.b_scale = row.inv_temperature = 1;
    row.x_max = row.y_max = row.shift = 0;
    LogitTerms terms = sums_of(row, buf_.b);
    if (floored)
      terms.c_sum -= buf_.b[k];
    else
      terms.tail = buf_.b[k] / p;
    return terms;
  }

  // A NaN logit is in no top K and the divergence's logarithm loses it, but the row's sums have it.
  LogitTerms with_nan(LogitTerms terms) const {
    if (std::isnan(student_.sum) || std::isnan(teacher_.sum)) terms.loss = terms.c_sum = std::nan("");
    return terms;
  }

  double token_advantage(double logprob, double teacher_logprob) const {
    if (o_.credit == Credit::Sequence) return all_.advantages ? all_.advantages[i_] : 0;
    const double advantage = teacher_logprob - logprob, c = o_.advantage_clip;
    return std::isnan(c) ? advantage : advantage < -c ? -c : advantage > c ? c : advantage;
  }

  void no_gradient() const {
    float* out = all_.dlogits.target(i_, buf_.e);
    std::fill(out, out + v_, 0.f);
    all_.dlogits.write(i_, out);
  }

  void logit_gradient(const LogitTerms& t, double scale) const {
    float* out = all_.dlogits.target(i_, buf_.e);
    if (!o_.top_k) {
      combine(buf_.c, float(scale), buf_.e, float(scale * t.c_sum / student_.sum), v_, out);
    } else {
      const double p_scale = o_.tail ? 1 : t.p_scale;
      if (o_.tail)
        combine(nullptr, 0, e_, float(scale * (t.c_sum - t.tail) / student_.sum), v_, out);
      else
        std::fill(out, out + v_, std::isnan(t.loss) ? std::nanf("") : 0.f);
      for (int64_t j = 0; j < top_count_; j++)
        out[buf_.ids[j]] = float(scale * (buf_.b[j] - buf_.a[j] * p_scale * t.c_sum));
    }
    all_.dlogits.write(i_, out);
  }

  // slope = dL/dlog p(y), times the row's factor.
  void token_gradient(int32_t id, double slope) const {
    float* out = all_.dlogits.target(i_, buf_.e);
    const float p = float(slope / student_.sum);
    combine(nullptr, 0, e_, p, v_, out);
    out[id] += float(slope);
    all_.dlogits.write(i_, out);
  }

  const DistillRows& all_;
  const DistillOptions& o_;
  int64_t i_, v_, top_count_ = -1;
  Buffers& buf_;
  const float *z_ = nullptr, *y_ = nullptr, *e_ = nullptr;
  float z_max_ = 0, y_max_ = 0, z_id_ = 0, y_id_ = 0;
  Softmax student_{}, teacher_{};
  double student_rest_ = 0, teacher_rest_ = 0;
};

}  // namespace

uint64_t distill_slot_bytes(int64_t v, const DistillOptions& options) {
  Arena arena;
  Buffers buffers(arena, v);
  if (options.top_k) {
    buffers.take_top(arena, options.top_k);
    if (options.top_k < v) TopK(arena, v, options.top_k);
  }
  return arena.used();
}

void distill_rows(const DistillRows& rows, const DistillOptions& options, void* scratch,
                  uint64_t scratch_bytes) {
  const int64_t v = rows.student.v;
  for_rows(rows.rows, scratch, scratch_bytes, distill_slot_bytes(v, options), [&](int64_t i, void* slot) {
    Arena arena(slot);
    Buffers buffers(arena, v);
    if (!options.top_k) return Row(rows, options, i, buffers).run();
    buffers.take_top(arena, options.top_k);
    if (options.top_k >= v) return Row(rows, options, i, buffers).run();
    TopK top(arena, v, options.top_k);
    buffers.top = &top;
    Row(rows, options, i, buffers).run();
  });
}

}  // namespace sdpo
