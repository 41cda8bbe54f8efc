// matmul on a GPU (shapes and flags: matmul.cpp). Where one input is bf16 and the other f32, the bf16 one is
// widened first. row_invariant takes our own kernel, which is. bf16_compute changes nothing here.
#include "ops/gemm.h"
#include "ops/matmul.h"

namespace sdpo {
namespace {

void launch_matmul(const GpuCall& call) {
  const sdpo_tensor &a = call.in(0), &b = call.in(1), &c = call.out(0);
  const bool ta = call.flag(0), tb = call.flag(1), invariant = call.flag(2);
  check_matmul(call.inputs(), c, call.attributes());
  GemmArgs g{};
  g.m = a.shape[ta ? 1 : 0];
  g.k = a.shape[ta ? 0 : 1];
  g.n = b.shape[tb ? 0 : 1];
  g.a = a.data;
  g.b = b.data;
  g.c = c.data;
  g.a_stride = a.shape[1];
  g.b_stride = b.shape[1];
  g.c_stride = g.n;
  g.transpose_a = ta;
  g.transpose_b = tb;
  g.output_dtype = SDPO_F32;
  g.beta = call.has_in(2) ? 1.f : 0.f;
  g.input_dtype = a.dtype;
  if (a.dtype != b.dtype) {
    const sdpo_tensor& narrow = a.dtype == SDPO_BF16 ? a : b;
    float* wide = static_cast<float*>(call.scratch());
    launch_widen(call, narrow.data, wide, narrow.shape[0] * narrow.shape[1]);
    (a.dtype == SDPO_BF16 ? g.a : g.b) = wide;
    g.input_dtype = SDPO_F32;
  }
  if (invariant)
    launch_plain_gemm(call, g);
  else
    launch_gemm(call, g, nullptr, 0);
}

SDPO_KERNEL(matmul, launch_matmul);

}  // namespace
}  // namespace sdpo
