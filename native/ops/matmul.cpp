// c = op(a) op(b) (+ c): matrix products of activations, weights and gradients.
// a [M,K] or [K,M], b [K,N] or [N,K] by the transpose flags; f32 accumulation; c may be given to accumulate
// into (its memory becomes the output's). Deterministic, whatever the number of threads.
// row_invariant (transpose_b only): each row of c depends on its row of a alone, bit for bit.
// bf16_compute: where b is bf16 and the processor multiplies bf16, a may be rounded to bf16 for speed.
#include "ops/matmul.h"

#include "backends/cpu/gemm.h"
#include "ops/schema.h"

namespace sdpo {
namespace {

void matmul(const Call& call) {
  const sdpo_tensor &a = call.in(0), &b = call.in(1), &c = call.out(0);
  const bool ta = call.flag(0), tb = call.flag(1), invariant = call.flag(2);
  const int64_t m = a.shape[ta ? 1 : 0], k = a.shape[ta ? 0 : 1];
  const int64_t n = b.shape[tb ? 0 : 1];
  check_matmul(&a, c, call.attributes());
  if (invariant) {
    gemm_row_invariant(m, n, k, call.in_as<float>(0), k, b.data, DType(b.dtype), k, call.out_as<float>(0), n);
    return;
  }
  gemm(m, n, k, {a.data, DType(a.dtype), a.shape[1], ta}, {b.data, DType(b.dtype), b.shape[1], tb},
       call.has_in(2) ? 1.f : 0.f, call.out_as<float>(0), n, call.flag(3));
}

SDPO_OP(matmul)
    .input("a", "f32|bf16", "A0,A1")
    .input("b", "f32|bf16", "B0,B1")
    .input("c?", "f32", "M,N")
    .output("c", "f32", "M,N")
    .aliases("c")
    .boolean("transpose_a", false)
    .boolean("transpose_b", false)
    .boolean("row_invariant", false)
    .boolean("bf16_compute", false)
    .derive([](Dims& dims, const double* attributes) {
      dims["M"] = dims[attributes[0] != 0 ? "A1" : "A0"];
      dims["N"] = dims[attributes[1] != 0 ? "B0" : "B1"];
    })
    .device_scratch([](const Dims& dims, const double*, const std::vector<Tensor>& inputs) {
      if (inputs[0].dtype() == inputs[1].dtype()) return uint64_t(0);
      const bool a = inputs[0].dtype() == DType::BF16;
      return uint64_t(dims.at(a ? "A0" : "B0") * dims.at(a ? "A1" : "B1")) * 4;
    })
    .cpu<matmul>();

}  // namespace
}  // namespace sdpo
