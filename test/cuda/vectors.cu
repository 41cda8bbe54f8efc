// One kernel for each 16-byte access of device.cuh; the test counts the accesses in the PTX.
#include "backends/device.cuh"

using sdpo::bf16x8;

extern "C" __global__ void plain(const bf16x8* x, bf16x8* y) { sdpo::st16(y, sdpo::ld16(x)); }

extern "C" __global__ void once(const bf16x8* x, bf16x8* y) { sdpo::st16_once(y, sdpo::ld16_once(x)); }

extern "C" __global__ void used(const bf16x8* x, bf16x8* y) {
  bf16x8 v = sdpo::ld16(x);
  for (sdpo::bf16& e : v.v) e = sdpo::to_bf16(2 * sdpo::to_f32(e));
  sdpo::st16(y, v);
}
