// In place, element by element, any shape: add: x <- x + y; scale: x <- factor x;
// lerp: x <- (1 - rate) x + rate y, computed in float32 (an exponential moving average).
#include "ops/add.h"

#include "core/parallel.h"
#include "ops/schema.h"

namespace sdpo {
namespace {

constexpr int64_t kGrain = 32768;

int64_t elements(const sdpo_tensor& x) {
  int64_t n = 1;
  for (int32_t i = 0; i < x.rank; i++) n *= x.shape[i];
  return n;
}

void add(const Call& call) {
  float* x = call.out_as<float>(0);
  const float* y = call.in_as<float>(1);
  parallel_for(elements(call.in(0)), kGrain,
               [&](int64_t begin, int64_t end) { add_range(x + begin, y + begin, end - begin); });
}

void scale(const Call& call) {
  float* x = call.out_as<float>(0);
  const float factor = float(call.number(0));
  parallel_for(elements(call.in(0)), kGrain,
               [&](int64_t begin, int64_t end) { scale_range(x + begin, factor, end - begin); });
}

void lerp(const Call& call) {
  const sdpo_tensor &x = call.out(0), &y = call.in(1);
  const float rate = float(call.number(0));
  parallel_for(elements(x), kGrain, [&](int64_t begin, int64_t end) {
    lerp_range(x.data, x.dtype == SDPO_BF16, y.data, y.dtype == SDPO_BF16, rate, begin, end);
  });
}

SDPO_OP(add).input("x", "f32", "*N").input("y", "f32", "*N").output("x", "f32", "*N").aliases("x").cpu<add>();

SDPO_OP(scale)
    .input("x", "f32", "*N")
    .output("x", "f32", "*N")
    .aliases("x")
    .number("factor", 1.0)
    .cpu<scale>();

SDPO_OP(lerp)
    .input("x", "f32|bf16", "*N")
    .input("y", "f32|bf16", "*N")
    .output("x", "", "*N")
    .like("x")
    .aliases("x")
    .number("rate", 0.0, 0, 1)
    .cpu<lerp>();

}  // namespace
}  // namespace sdpo
