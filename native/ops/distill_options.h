// What the CPU and the GPU kernels of distill_loss read from a call: attributes, and the order of outputs.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "backends/abi.h"
#include "core/error.h"

namespace sdpo {

constexpr int kDistillAttributes = 9;  // and in_place after them

enum class Credit : int32_t { Logit, Token, Sequence };

struct DistillOptions {
  Credit credit;
  double alpha;
  int64_t top_k;  // 0: the whole vocabulary
  bool tail;
  double is_clip, advantage_clip, teacher_rate;  // NaN: none
  double temperature;
  bool gradient;

  // Attributes in the order of distill_attributes.
  DistillOptions(const double* a, int64_t v)
      : credit(Credit(int(a[0]))),
        alpha(a[1]),
        top_k(std::isnan(a[2]) || credit != Credit::Logit ? 0 : std::min(int64_t(a[2]), v)),
        tail(a[3] != 0),
        is_clip(a[4]),
        advantage_clip(a[5]),
        teacher_rate(a[6]),
        temperature(a[7]),
        gradient(a[8] != 0) {}
};

inline bool share_memory(const sdpo_tensor& x, const sdpo_tensor& y) {
  const auto end = [](const sdpo_tensor& t) {
    return static_cast<const char*>(t.data) + t.shape[0] * t.shape[1] * (t.dtype == SDPO_BF16 ? 2 : 4);
  };
  return x.data && y.data && x.data < end(y) && y.data < end(x);
}

// Throws where inputs and attributes do not belong together; `inputs` in the schema's order.
inline void check_distill_inputs(const DistillOptions& options, const sdpo_tensor* inputs, bool in_place) {
  const bool has_initial = inputs[2].data, has_advantages = inputs[7].data;
  if (options.gradient && in_place &&
      (share_memory(inputs[0], inputs[1]) || share_memory(inputs[0], inputs[2])))
    throw Error("ERR_SDPO_OP", "in_place: the gradient would overwrite logits of the teacher");
  if (has_initial == std::isnan(options.teacher_rate))
    throw Error("ERR_SDPO_OP", "teacher_rate and initial_teacher_logits belong together");
  if (options.credit == Credit::Sequence && options.gradient && !has_advantages)
    throw Error("ERR_SDPO_OP", "advantages: credit sequence needs them (its statistics: gradient false)");
}

// Of linear_distill_loss; `inputs` in its schema's order.
inline void check_linear_distill(const DistillOptions& options, const sdpo_tensor* inputs) {
  const bool hidden = inputs[4].data, head = inputs[5].data;
  if (hidden == std::isnan(options.teacher_rate) || hidden != head)
    throw Error("ERR_SDPO_OP",
                "teacher_rate, initial_teacher_hidden and initial_teacher_head belong together");
  if (options.credit == Credit::Sequence && options.gradient && !inputs[10].data)
    throw Error("ERR_SDPO_OP", "advantages: credit sequence needs them (its statistics: gradient false)");
}

constexpr double kTailFloor = 9.999999500000017e-8;  // the least mass of the tail, 1 - exp(-1e-7)

// The outputs that are one number a row, in the order of distill_outputs.
enum DistillOutput {
  kTokenLoss,
  kStudentLogprobs,
  kTeacherLogprobs,
  kStudentLse,
  kTeacherLse,
  kEntropy,
  kKl,
  kRatio,
  kStudentTopkMass,
  kTeacherTopkMass,
  kDistillOutputs
};

// GPUs: rows that do not fit into shared memory go in parts of about this many columns, so many rows at once
// at most, and leave this many bytes a part and a row between the kernels.
constexpr int64_t kPartColumns = 16384, kPartRows = 256, kPartBytes = 80, kPartRowBytes = 16;
inline int distill_parts(int64_t v) { return int((v + kPartColumns - 1) / kPartColumns); }
inline uint64_t distill_parts_bytes(int64_t n, int64_t v) {
  return uint64_t(std::min(n, kPartRows)) * (uint64_t(distill_parts(v)) * kPartBytes + kPartRowBytes);
}

}  // namespace sdpo
