// What the CPU and the GPU kernels of policy_loss read from a call: attributes, and how many tensors.
#pragma once
#include "ops/policy_term.h"

namespace sdpo {

constexpr int kPolicyInputs = 6, kPolicyOutputs = 6;

struct PolicyOptions {
  PolicyClips<double> clips;
  double temperature;
  bool gradient;

  // Attributes in the order of policy_attributes.
  explicit PolicyOptions(const double* a)
      : clips{a[0], a[1], a[2], a[3], KlKind(int(a[4]))}, temperature(a[5]), gradient(a[6] != 0) {}
};

}  // namespace sdpo
