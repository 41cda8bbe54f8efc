// grad_norm: norm = (sqrt(sum g^2), how many elements are not finite); double sums of blocks of kBlock, added
// in their order, whatever the threads.
//
// adamw (Loshchilov and Hutter, arXiv 1711.05101; as torch.optim.AdamW), in place, with g scaled first:
//   m <- beta1 m + (1 - beta1) g,  v <- beta2 v + (1 - beta2) g^2,  theta <- theta (1 - lr decay),
//   theta <- theta - lr m / (1 - beta1^step) / (sqrt(v / (1 - beta2^step)) + epsilon),
//   ema <- (1 - rate) ema + rate theta.
// With norm (grad_norm's output) gradients are clipped to clip_norm, as torch.nn.utils.clip_grad_norm_ does,
// and nothing changes where one of them is not finite. Arithmetic in float32; bf16 arrays are rounded to
// nearest even, or with rounding_seed up or down by chance (stochastic rounding: right on average). theta is
// `master` where that is given (parameter becomes its rounding), else `parameter` as stored. Hazard: a bf16 v
// cannot decay where 1 - beta2 < 2^-9, and a bf16 ema cannot move by less than 2^-9 of itself.
#include "ops/optimizer.h"

#include <algorithm>
#include <cmath>

#include "core/parallel.h"
#include "ops/schema.h"

namespace sdpo {
namespace {

constexpr int64_t kBlock = kNormBlock;

int64_t elements(const sdpo_tensor& x) {
  int64_t n = 1;
  for (int32_t i = 0; i < x.rank; i++) n *= x.shape[i];
  return n;
}

void grad_norm(const Call& call) {
  const int64_t n = elements(call.in(0)), blocks = norm_blocks(n);
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

uint64_t norm_scratch(const Dims& dims, const double*) {
  return norm_blocks(dims.at("*N")) * 2 * sizeof(double);
}

FloatArray float_array(const sdpo_tensor& t) { return {t.data, t.dtype == SDPO_BF16}; }

// One element at a time: bf16 arrays are rounded by chance.
void adamw_by_chance(const AdamwStep& a, int64_t begin, int64_t end) {
  const auto get = [](const FloatArray& x, int64_t i) {
    return x.bf16 ? bf16_to_f32(static_cast<const uint16_t*>(x.data)[i])
                  : static_cast<const float*>(x.data)[i];
  };
  const auto put = [](const FloatArray& x, int64_t i, float value, uint32_t bits) {
    if (x.bf16)
      static_cast<uint16_t*>(x.data)[i] = round_by_chance(value, bits);
    else
      static_cast<float*>(x.data)[i] = value;
  };
  for (int64_t i = begin; i < end; i++) {
    const PhiloxWords bits = adamw_bits(a, i);
    const float g = a.gradient[i] * a.gradient_scale;
    const float m = get(a.first, i) * a.beta1 + g * a.rest1;
    const float v = get(a.second, i) * a.beta2 + g * g * a.rest2;
    put(a.first, i, m, bits[1]);
    put(a.second, i, v, bits[2]);
    float theta = (a.master ? a.master[i] : get(a.parameter, i)) * a.decay;
    theta -= m * a.rate / (std::sqrt(v) * a.second_scale + a.epsilon);
    put(a.parameter, i, theta, bits[0]);
    if (a.master)
      a.master[i] = theta;
    else
      theta = get(a.parameter, i);
    if (a.ema.data) put(a.ema, i, get(a.ema, i) * (1 - a.ema_rate) + theta * a.ema_rate, bits[3]);
  }
}

void adamw(const Call& call) {
  AdamwStep a{AdamwSettings(call.attributes(), &call.in(0))};
  a.gradient_scale = adamw_scale(a, call.in_as<float>(kNorm));
  if (std::isnan(a.gradient_scale)) return;
  a.parameter = float_array(call.in(kParameter));
  a.first = float_array(call.in(kFirst));
  a.second = float_array(call.in(kSecond));
  a.ema = float_array(call.in(kEma));
  a.gradient = call.in_as<float>(kGradient);
  a.master = call.in_as<float>(kMaster);
  parallel_for(elements(call.in(kParameter)), kBlock, [&](int64_t begin, int64_t end) {
    if (a.stochastic)
      adamw_by_chance(a, begin, end);
    else
      adamw_range(a, begin, end);
  });
}

SDPO_OP(grad_norm)
    .input("gradient", "f32", "*N")
    .output("norm", "f32", "2")
    .scratch(norm_scratch)
    .device_scratch([](const Dims& dims, const double* a, const std::vector<Tensor>&) {
      return norm_scratch(dims, a);
    })
    .cpu<grad_norm>();

SDPO_OP(adamw)
    .input("parameter", "f32|bf16", "*N")
    .input("gradient", "f32", "*N")
    .input("first_moment", "f32|bf16", "*N")
    .input("second_moment", "f32|bf16", "*N")
    .input("master?", "f32", "*N")
    .input("ema?", "f32|bf16", "*N")
    .input("norm?", "f32", "2")
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
    .nullable("clip_norm", 0, 1e30)
    .nullable_integer("rounding_seed", 0, int64_t(1) << 53)
    .cpu<adamw>();

}  // namespace
}  // namespace sdpo
