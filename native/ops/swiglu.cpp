// SwiGLU. swiglu_fwd: y = silu(gate) up, silu(g) = g s, s = 1 / (1 + exp(-g)).
// swiglu_bwd: dup = dy g s, dgate = dy up s (1 + g (1 - s)). All [T,I]; element by element.
#include "ops/swiglu.h"

#include "core/parallel.h"
#include "ops/schema.h"

namespace sdpo {
namespace {

constexpr int64_t kGrain = 16384;

int64_t elements(const Call& call) { return call.in(0).shape[0] * call.in(0).shape[1]; }

void swiglu_fwd(const Call& call) {
  const float *gate = call.in_as<float>(0), *up = call.in_as<float>(1);
  float* y = call.out_as<float>(0);
  parallel_for(elements(call), kGrain, [&](int64_t begin, int64_t end) {
    swiglu_fwd_range(gate + begin, up + begin, y + begin, end - begin);
  });
}

void swiglu_bwd(const Call& call) {
  const float *gate = call.in_as<float>(0), *up = call.in_as<float>(1), *dy = call.in_as<float>(2);
  float *dgate = call.out_as<float>(0), *dup = call.out_as<float>(1);
  parallel_for(elements(call), kGrain, [&](int64_t begin, int64_t end) {
    swiglu_bwd_range(gate + begin, up + begin, dy + begin, dgate + begin, dup + begin, end - begin);
  });
}

SDPO_OP(swiglu_fwd)
    .input("gate", "f32", "T,I")
    .input("up", "f32", "T,I")
    .output("y", "f32", "T,I")
    .cpu<swiglu_fwd>();

SDPO_OP(swiglu_bwd)
    .input("gate", "f32", "T,I")
    .input("up", "f32", "T,I")
    .input("dy", "f32", "T,I")
    .output("dgate", "f32", "T,I")
    .output("dup", "f32", "T,I")
    .cpu<swiglu_bwd>();

}  // namespace
}  // namespace sdpo
