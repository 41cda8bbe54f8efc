// The SDPO token loss, forward and backward, row by row (docs: the token loss; paper: arXiv 2601.20802).
//   token_loss = weights * ratio * D(p, t), p = softmax(student / temperature), t = softmax(teacher / ...)
//   dlogits = coefficients * d token_loss / d student_logits; weights, ratio and advantages without gradient
// D: credit `logit` a divergence over buckets (every token, or the top_k of the student's with or without
// one for the tail): forward KL at alpha 0, reverse KL at 1, the generalised JSD between; `token` the sampled
// token's advantage (clipped) times its logprob; `sequence` the same with given advantages.
// student_logits, teacher_logits, initial_teacher_logits f32|bf16 [N,V]; the rest [N]. dlogits has the
// student's dtype and, in place, its memory. kl is KL(P || T) over the buckets, on the sampled token for the
// other credits; ratio is not clipped; statistics are those of logits / temperature.
// A row with weight 0 gives loss 0 and gradient 0 whatever its logits. Bits do not depend on threads.
#include "ops/distill_loss.h"

namespace sdpo {

void distill_attributes(OpSchema& op) {
  op.choice("credit", {"logit", "token", "sequence"})
      .number("alpha", 0.5, 0, 1)
      .nullable_integer("top_k", 1, int64_t(1) << 31)
      .boolean("tail", true)
      .nullable("is_clip", 0, 1e30)
      .nullable("advantage_clip", 0, 1e30)
      .nullable("teacher_rate", 0, 1)
      .number("temperature", 1, 1e-6, 1e6)
      .boolean("gradient", true)
      .check([](const Dims& dims, const double* a) {
        const bool token = Credit(int(a[0])) != Credit::Logit, clipped = !std::isnan(a[5]);
        if (dims.at("V") < 1) throw Error("ERR_SDPO_OP", "the vocabulary is empty");
        if ((token || clipped) && a[1] != 1)
          throw Error("ERR_SDPO_OP", str("alpha: ", token ? "credit token and sequence" : "advantage_clip",
                                         " need alpha 1 (reverse KL), got ", a[1]));
      });
}

void distill_outputs(OpSchema& op) {
  for (const char* name : {"token_loss", "student_logprobs", "teacher_logprobs", "student_lse", "teacher_lse",
                           "entropy", "kl", "ratio", "student_topk_mass", "teacher_topk_mass"})
    op.output(name, "f32", "N");
}

namespace {

void distill_loss(const Call& call) {
  DistillRows rows{};
  rows.student = LogitMatrix::of(call.in(0));
  rows.teacher = LogitMatrix::of(call.in(1));
  if (call.has_in(2)) rows.initial = LogitMatrix::of(call.in(2));
  const DistillOptions options(call.attributes(), rows.student.v);
  check_distill_inputs(options, &call.in(0), call.flag(kDistillAttributes));
  rows.rows = call.in(0).shape[0];
  rows.token_ids = call.in_as<int32_t>(3);
  rows.weights = call.in_as<float>(4);
  rows.coefficients = call.in_as<float>(5);
  rows.old_logprobs = call.in_as<float>(6);
  rows.advantages = call.in_as<float>(7);
  for (int i = 0; i < kDistillOutputs; i++) rows.out[i] = call.out_as<float>(i);
  if (options.gradient) rows.dlogits = LogitMatrix::of(call.out(kDistillOutputs));
  check_token_ids(rows.token_ids, rows.rows, rows.student.v);
  distill_rows(rows, options, call.scratch(), call.scratch_bytes());
}

SDPO_OP(distill_loss)
    .input("student_logits", "f32|bf16", "N,V")
    .input("teacher_logits", "f32|bf16", "N,V")
    .input("initial_teacher_logits?", "f32|bf16", "N,V")
    .input("token_ids", "i32", "N")
    .input("weights", "f32", "N")
    .input("coefficients", "f32", "N")
    .input("old_logprobs?", "f32", "N")
    .input("advantages?", "f32", "N")
    .with(distill_outputs)
    .output("dlogits", "", "N,V")
    .like("student_logits")
    .aliases("student_logits", "in_place")
    .only("gradient")
    .with(distill_attributes)
    .boolean("in_place", false)
    .scratch([](const Dims& dims, const double* a) {
      const int64_t v = dims.at("V");
      return row_scratch_bytes(dims.at("N"), distill_slot_bytes(v, DistillOptions(a, v)));
    })
    .device_scratch([](const Dims& dims, const double*, const std::vector<Tensor>&) {
      return distill_parts_bytes(dims.at("N"), dims.at("V"));
    })
    .cpu<distill_loss>();

}  // namespace
}  // namespace sdpo
