// AdamW as the CPU and the GPU kernels share it: settings from attributes, clipping, one element.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "backends/abi.h"
#include "core/error.h"
#include "core/philox.h"

namespace sdpo {

// Squares are summed in double by blocks of so many elements.
constexpr int64_t kNormBlock = 32768;
inline int64_t norm_blocks(int64_t n) { return (n + kNormBlock - 1) / kNormBlock; }

enum AdamwInput { kParameter, kGradient, kFirst, kSecond, kMaster, kEma, kNorm };

struct AdamwSettings {
  float gradient_scale, clip_norm;   // clip_norm NaN: none
  float decay;                       // 1 - learning rate * weight decay
  float beta1, beta2, rest1, rest2;  // rest: 1 - beta, rounded once
  float rate;                        // learning rate / (1 - beta1^step)
  float second_scale;                // 1 / sqrt(1 - beta2^step)
  float epsilon, ema_rate;
  bool stochastic;  // bf16 arrays are rounded up or down by chance, which the seed and the step decide
  uint64_t seed, step;

  // Attributes and inputs in the schema's order. Throws where they do not belong together.
  AdamwSettings(const double* a, const sdpo_tensor* inputs) {
    if (bool(inputs[kEma].data) == std::isnan(a[7]))
      throw Error("ERR_SDPO_OP", "ema_rate: expected a number with ema, and null without");
    if (!std::isnan(a[8]) && !inputs[kNorm].data)
      throw Error("ERR_SDPO_OP", "clip_norm: needs norm, the output of grad_norm");
    gradient_scale = float(a[6]);
    clip_norm = float(a[8]);
    decay = float(1 - a[0] * a[4]);
    beta1 = float(a[1]);
    beta2 = float(a[2]);
    rest1 = float(1 - a[1]);
    rest2 = float(1 - a[2]);
    rate = float(a[0] / (1 - std::pow(a[1], a[5])));
    second_scale = float(1 / std::sqrt(1 - std::pow(a[2], a[5])));
    epsilon = float(a[3]);
    ema_rate = float(a[7]);
    stochastic = !std::isnan(a[9]);
    seed = stochastic ? uint64_t(a[9]) : 0;
    step = uint64_t(a[5]);
  }
};

// What gradients are multiplied with; NaN: nothing may change. norm: as grad_norm gives it, or null.
SDPO_HOST_DEVICE inline float adamw_scale(const AdamwSettings& s, const float* norm) {
  if (!norm) return s.gradient_scale;
  if (norm[1] != 0 || !(norm[0] <= 3.4028234e38f)) return NAN;
  if (s.clip_norm != s.clip_norm) return s.gradient_scale;
  const float scaled = norm[0] * (s.gradient_scale < 0 ? -s.gradient_scale : s.gradient_scale);
  const float factor = s.clip_norm / (scaled + 1e-6f);
  return factor < 1 ? s.gradient_scale * factor : s.gradient_scale;
}

// The bf16 below or above x, each as likely as x is near it. `bits`: 16 random ones.
SDPO_HOST_DEVICE inline uint16_t round_by_chance(float x, uint32_t bits) {
  uint32_t u;
  memcpy(&u, &x, 4);
  if ((u & 0x7f800000u) == 0x7f800000u) return uint16_t(u >> 16 | ((u & 0xffffu) != 0));
  return uint16_t((u + (bits & 0xffffu)) >> 16);
}

// Random bits of element i: word 0 for the parameter, 1 and 2 for the moments, 3 for the average.
SDPO_HOST_DEVICE inline PhiloxWords adamw_bits(const AdamwSettings& s, int64_t i) {
  return philox({{uint32_t(i), uint32_t(uint64_t(i) >> 32), uint32_t(s.step), uint32_t(s.step >> 32)}},
                uint32_t(s.seed), uint32_t(s.seed >> 32));
}

}  // namespace sdpo
