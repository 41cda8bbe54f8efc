// Where the losses over an output matrix put things on a device other than the CPU: what a schema asks for
// and what a launcher uses. For each model hidden states in the head's dtype (where that is not f32) and
// logits of a chunk, of that dtype too; then the row kernels' scratch and the product library's.
#pragma once
#include <algorithm>
#include <cstdint>

namespace sdpo {

constexpr int kLinearModels = 3;

struct LinearHead {
  int64_t d = 0;  // 0: no such model
  bool bf16 = false;
};

struct LinearLayout {
  int64_t chunk = 0;
  uint64_t hidden[kLinearModels], logits[kLinearModels], rows, workspace, workspace_bytes, total;
};

constexpr int64_t kDeviceChunk = 2048;  // fewer rows, and adding up d_head costs more than the losses
constexpr uint64_t kGemmWorkspace = 32 << 20;

inline LinearLayout linear_layout(int64_t wished, int64_t n, int64_t v,
                                  const LinearHead (&heads)[kLinearModels],
                                  uint64_t (*row_bytes)(int64_t n, int64_t v)) {
  LinearLayout l{};
  l.chunk = std::max<int64_t>(1, std::min(wished ? wished : kDeviceChunk, n));
  const auto take = [&](uint64_t bytes) {
    const uint64_t at = l.total;
    l.total += (bytes + 255) / 256 * 256;
    return at;
  };
  for (int m = 0; m < kLinearModels; m++) {
    if (!heads[m].d) continue;
    l.hidden[m] = take(heads[m].bf16 ? uint64_t(l.chunk * heads[m].d) * 2 : 0);
    l.logits[m] = take(uint64_t(l.chunk * v) * (heads[m].bf16 ? 2 : 4));
  }
  l.rows = take(row_bytes ? row_bytes(l.chunk, v) : 0);
  l.workspace_bytes = std::min(kGemmWorkspace, uint64_t(l.chunk * v) * 4);
  l.workspace = take(l.workspace_bytes);
  return l;
}

}  // namespace sdpo
