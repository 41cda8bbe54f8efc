// The clipped loss of one token (formulas: policy_loss.cpp), for the CPU in double, for GPUs in float.
#pragma once
#include <cmath>

#include "core/host_device.h"

namespace sdpo {

enum class KlKind { K1, K2, K3 };

template <class Real>
struct PolicyClips {
  Real low, high, dual;  // NaN dual: none
  Real kl_coefficient;
  KlKind kl_kind;
};

template <class Real>
struct PolicyTerm {
  Real loss, slope;  // slope = d loss / d logprob
  Real ratio, kl;
  int clipped;
};

template <class Real>
SDPO_HOST_DEVICE inline Real clamp20(Real x) {
  return x < -20 ? -20 : x > 20 ? 20 : x;
}

// The estimators of KL(policy || reference) from one sample (Schulman's k1, k2, k3), added to `term`.
template <class Real>
SDPO_HOST_DEVICE inline void add_kl(const PolicyClips<Real>& clips, Real gap, PolicyTerm<Real>& term) {
  Real slope;
  if (clips.kl_kind == KlKind::K1) {
    term.kl = gap;
    slope = 1;
  } else if (clips.kl_kind == KlKind::K2) {
    term.kl = Real(0.5) * gap * gap;
    slope = gap;
  } else {
    const Real bounded = clamp20(-gap), e = std::exp(bounded);
    term.kl = e - bounded - 1;
    slope = bounded == -gap ? 1 - e : 0;
  }
  term.loss += clips.kl_coefficient * term.kl;
  term.slope += clips.kl_coefficient * slope;
}

// `reference`: null without a KL term.
template <class Real>
SDPO_HOST_DEVICE inline PolicyTerm<Real> policy_term(const PolicyClips<Real>& clips, Real logprob,
                                                     Real old_logprob, Real advantage,
                                                     const float* reference) {
  const Real gap = logprob - old_logprob, bounded = clamp20(gap), ratio = std::exp(bounded);
  const Real least = 1 - clips.low, most = 1 + clips.high,
             cut = ratio < least  ? least
                   : ratio > most ? most
                                  : ratio;
  PolicyTerm<Real> term{-advantage * ratio, bounded == gap ? -advantage * ratio : 0, ratio, 0, 0};
  if (-advantage * cut > term.loss) {
    term.clipped = 1;
    term.loss = -advantage * cut;
    term.slope = 0;
  }
  if (advantage < 0 && clips.dual == clips.dual && -advantage * clips.dual < term.loss) {
    term.clipped |= 2;
    term.loss = -advantage * clips.dual;
    term.slope = 0;
  }
  if (reference) add_kl(clips, logprob - Real(*reference), term);
  if (logprob != logprob) term.loss = term.slope = logprob;
  return term;
}

}  // namespace sdpo
