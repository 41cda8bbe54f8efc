// Philox4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3"
// (SC11): the same key and counter give the same four words anywhere, in any order.
#pragma once
#include <cstdint>

#include "core/host_device.h"

namespace sdpo {

struct PhiloxWords {
  uint32_t word[4];
  SDPO_HOST_DEVICE uint32_t operator[](int i) const { return word[i]; }
};

SDPO_HOST_DEVICE inline PhiloxWords philox(PhiloxWords counter, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; round++) {
    const uint64_t a = uint64_t(0xD2511F53u) * counter[0], b = uint64_t(0xCD9E8D57u) * counter[2];
    counter = {uint32_t(b >> 32) ^ counter[1] ^ key0, uint32_t(b), uint32_t(a >> 32) ^ counter[3] ^ key1,
               uint32_t(a)};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

// Uniform in (0, 1): 32 bits, never 0 or 1.
inline double philox_uniform(uint32_t word) { return (double(word) + 0.5) * (1.0 / 4294967296.0); }

}  // namespace sdpo
