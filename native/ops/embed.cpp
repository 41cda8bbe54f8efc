// Token embedding. embed_fwd: x[t] = table[ids[t]]; embed_bwd: dtable[ids[t]] += dx[t].
// ids [T] in [0,V), table [V,D], x [T,D]. Equal ids add up in the order of t, whatever the threads.
#include "ops/rows.h"
#include "ops/schema.h"

namespace sdpo {
namespace {

void embed_fwd(const Call& call) {
  const sdpo_tensor& table = call.in(1);
  const int64_t tokens = call.in(0).shape[0];
  const int32_t* ids = call.in_as<int32_t>(0);
  check_indices("ids", ids, tokens, table.shape[0]);
  copy_rows(table.data, DType(table.dtype), ids, tokens, table.shape[1], call.out_as<float>(0));
}

void embed_bwd(const Call& call) {
  const int64_t tokens = call.in(0).shape[0];
  const int32_t* ids = call.in_as<int32_t>(0);
  check_indices("ids", ids, tokens, call.in(2).shape[0]);
  add_rows(call.in_as<float>(1), ids, tokens, call.in(1).shape[1], call.out_as<float>(0));
}

SDPO_OP(embed_fwd)
    .input("ids", "i32", "T")
    .input("table", "f32|bf16", "V,D")
    .output("x", "f32", "T,D")
    .cpu<embed_fwd>();

SDPO_OP(embed_bwd)
    .input("ids", "i32", "T")
    .input("dx", "f32", "T,D")
    .input("dtable", "f32", "V,D")
    .output("dtable", "f32", "V,D")
    .aliases("dtable")
    .cpu<embed_bwd>();

}  // namespace
}  // namespace sdpo
