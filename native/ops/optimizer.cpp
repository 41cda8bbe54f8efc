// grad_norm: norm = (sqrt(sum g^2), how many elements are not finite); double sums of blocks of kBlock, added
// in their order, whatever the threads.
//
// adamw (Loshchilov and Hutter, arXiv 1711.05101; as torch.optim.AdamW), in place, with g scaled first:
//   m <- beta1 m + (1 - beta1) g,  v <- beta2 v + (1 - beta2) g^2,  theta <- theta (1 - lr decay),
//   theta <- theta - lr m / (1 - beta1^step) / (sqrt(v / (1 - beta2^step)) + epsilon),
//   ema <- (1 - rate) ema + rate theta.
// Arithmetic in float32; bf16 arrays are rounded to nearest even. theta is `master` where that is given
// (parameter becomes its rounding), else `parameter` as stored. Hazard: a bf16 v cannot decay where
// 1 - beta2 < 2^-9, and a bf16 ema cannot move by less than 2^-9 of itself.
#include "ops/optimizer.h"

#include <algorithm>
#include <cmath>

#include "core/parallel.h"
#include "ops/schema.h"

namespace sdpo {
namespace {

constexpr int64_t kBlock = 32768;

int64_t elements(const sdpo_tensor& x) {
  int64_t n = 1;
  for (int32_t i = 0; i < x.rank; i++) n *= x.shape[i];
  return n;
}

int64_t block_count(int64_t n) { return (n + kBlock - 1) / kBlock; }

void grad_norm(const Call& call) {
  const int64_t n = elements(call.in(0)), blocks = block_count(n);
  const float* gradient = call.in_as<float>(0);
  double* sums = static_cast<double*>(call.scratch());
  parallel_tasks(blocks, [&](int64_t b) {
    squares_range(gradient + b * kBlock, std::min(kBlock, n - b * kBlock), sums + 2 * b);
  });
  double squares = 0, unfinished = 0;
  for (int64_t b = 0; b < blocks; b++) {
    squares += sums[2 * b];
    unfinished += sums[2 * b + 1];
  }
  call.out_as<float>(0)[0] = float(std::sqrt(squares));
  call.out_as<float>(0)[1] = float(unfinished);
}

FloatArray float_array(const sdpo_tensor& t) { return {t.data, t.dtype == SDPO_BF16}; }

void adamw(const Call& call) {
  enum { Parameter, Gradient, First, Second, Master, Ema };
  enum { LearningRate, Beta1, Beta2, Epsilon, WeightDecay, Step, GradientScale, EmaRate };
  if (call.has_in(Ema) == call.is_null(EmaRate))
    throw Error("ERR_SDPO_OP", "ema_rate: expected a number with ema, and null without");
  const double beta1 = call.number(Beta1), beta2 = call.number(Beta2), step = call.number(Step);
  const double learning_rate = call.number(LearningRate);
  AdamwStep a{};
  a.parameter = float_array(call.in(Parameter));
  a.first = float_array(call.in(First));
  a.second = float_array(call.in(Second));
  a.ema = float_array(call.in(Ema));
  a.gradient = call.in_as<float>(Gradient);
  a.master = call.in_as<float>(Master);
  a.gradient_scale = float(call.number(GradientScale));
  a.decay = float(1 - learning_rate * call.number(WeightDecay));
  a.beta1 = float(beta1);
  a.beta2 = float(beta2);
  a.rest1 = float(1 - beta1);
  a.rest2 = float(1 - beta2);
  a.rate = float(learning_rate / (1 - std::pow(beta1, step)));
  a.second_scale = float(1 / std::sqrt(1 - std::pow(beta2, step)));
  a.epsilon = float(call.number(Epsilon));
  a.ema_rate = float(call.number(EmaRate));
  parallel_for(elements(call.in(Parameter)), kBlock,
               [&](int64_t begin, int64_t end) { adamw_range(a, begin, end); });
}

SDPO_OP(grad_norm)
    .input("gradient", "f32", "*N")
    .output("norm", "f32", "2")
    .scratch([](const Dims& dims, const double*) {
      return uint64_t(block_count(dims.at("*N"))) * 2 * sizeof(double);
    })
    .cpu<grad_norm>();

SDPO_OP(adamw)
    .input("parameter", "f32|bf16", "*N")
    .input("gradient", "f32", "*N")
    .input("first_moment", "f32|bf16", "*N")
    .input("second_moment", "f32|bf16", "*N")
    .input("master?", "f32", "*N")
    .input("ema?", "f32|bf16", "*N")
    .output("parameter", "", "*N")
    .like("parameter")
    .aliases("parameter")
    .output("first_moment", "", "*N")
    .like("first_moment")
    .aliases("first_moment")
    .output("second_moment", "", "*N")
    .like("second_moment")
    .aliases("second_moment")
    .output("master", "f32", "*N")
    .aliases("master")
    .only("master")
    .output("ema", "", "*N")
    .like("ema")
    .aliases("ema")
    .only("ema")
    .number("learning_rate", std::nan(""), 0, 1e6)
    .number("beta1", 0.9, 0, 1 - 1e-12)
    .number("beta2", 0.999, 0, 1 - 1e-12)
    .number("epsilon", 1e-8, 0, 1)
    .number("weight_decay", 0.01, 0, 1e6)
    .integer("step", 0, 1, int64_t(1) << 52)
    .number("gradient_scale", 1.0)
    .nullable("ema_rate", 0, 1)
    .cpu<adamw>();

}  // namespace
}  // namespace sdpo
