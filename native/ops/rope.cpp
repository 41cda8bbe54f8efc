// Rotary position embedding, half rotation, in place: with a = float(position) inv_freq[f] rounded to
// float32, c = attention_factor cos(a), s = attention_factor sin(a),
//   x[f] <- x[f] c - x[f+F] s,  x[f+F] <- x[f+F] c + x[f] s   for each head of a token.
// x [T,H,E], positions [T], inv_freq [F], E = 2F. inverse: the transpose (s negated), for gradients.
#include "ops/rope.h"

#include <vector>

#include "core/parallel.h"
#include "ops/schema.h"

namespace sdpo {
namespace {

void rope(const Call& call) {
  const sdpo_tensor& x = call.out(0);
  const int64_t tokens = x.shape[0], heads = x.shape[1], size = x.shape[2], half = size / 2;
  const int32_t* positions = call.in_as<int32_t>(1);
  const float *inv_freq = call.in_as<float>(2), factor = float(call.number(0));
  const float sign = call.flag(1) ? -factor : factor;
  parallel_for(tokens, 1 + 4096 / (heads * size + 1), [&](int64_t begin, int64_t end) {
    std::vector<float> cosine(size_t(half + 15) / 16 * 16), sine(cosine.size());
    for (int64_t t = begin; t < end; t++)
      rope_token(call.out_as<float>(0) + t * heads * size, heads, half, float(positions[t]), inv_freq, factor,
                 sign, cosine.data(), sine.data());
  });
}

SDPO_OP(rope)
    .input("x", "f32", "T,H,E")
    .input("positions", "i32", "T")
    .input("inv_freq", "f32", "F")
    .output("x", "f32", "T,H,E")
    .aliases("x")
    .number("attention_factor", 1.0, 0, 1e6)
    .boolean("inverse", false)
    .check([](const Dims& dims, const double*) {
      if (dims.at("E") != 2 * dims.at("F"))
        throw Error("ERR_SDPO_OP", str("[rope] inv_freq: expected ", dims.at("E") / 2,
                                       " frequencies for heads of ", dims.at("E"), ", got ", dims.at("F")));
    })
    .cpu<rope>();

}  // namespace
}  // namespace sdpo
