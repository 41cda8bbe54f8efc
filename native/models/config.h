// What a decoder computes beyond what its parameters say by being there and by their shapes. The binding
// fills it from the TypeScript ModelConfig, which has validated it.
#pragma once
#include <cstdint>
#include <vector>

namespace sdpo {

struct RopeTable {
  std::vector<float> inv_freq;  // [head_dim / 2]
  double attention_factor = 1;
};

struct DecoderConfig {
  int64_t hidden = 0, layers = 0, heads = 0, kv_heads = 0, head_dim = 0;
  double norm_eps = 1e-6;
  bool tied = false, post_norm = false;
  std::vector<int64_t> window;  // per layer; 0: full attention
  RopeTable rope_full, rope_sliding;
};

}  // namespace sdpo
