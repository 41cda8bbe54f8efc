// Stores keys and values into the pages of a cache: k_pages[slot / B, slot % B] = k_n for slot = slots_n.
// k, v f32 [N,K,E], slots i32 [N], k_pages and v_pages f32 or bf16 (rounded to nearest even) [P,B,K,E]; the
// outputs are the pages' own memory. A slot outside [0, P B) or given twice is an error, and nothing is
// stored.
#include <algorithm>

#include "core/parallel.h"
#include "ops/schema.h"

namespace sdpo {
namespace {

void check_slots(const int32_t* slots, int64_t count, int64_t capacity) {
  std::vector<int32_t> sorted(slots, slots + count);
  std::sort(sorted.begin(), sorted.end());
  if (count && (sorted.front() < 0 || sorted.back() >= capacity))
    throw Error("ERR_SDPO_OP", str("slots: ", sorted.front() < 0 ? sorted.front() : sorted.back(),
                                   " is outside the cache's ", capacity, " slots"));
  const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
  if (twice != sorted.end()) throw Error("ERR_SDPO_OP", str("slots: ", *twice, " is given twice"));
}

void store_row(const float* from, const sdpo_tensor& pages, int64_t slot, int64_t size) {
  if (pages.dtype == SDPO_F32) {
    std::copy(from, from + size, static_cast<float*>(pages.data) + slot * size);
    return;
  }
  std::transform(from, from + size, static_cast<uint16_t*>(pages.data) + slot * size, f32_to_bf16);
}

void kv_store(const Call& call) {
  const int64_t count = call.in(0).shape[0], size = call.in(0).shape[1] * call.in(0).shape[2];
  const sdpo_tensor &k_pages = call.out(0), &v_pages = call.out(1);
  const auto* slots = call.in_as<int32_t>(2);
  check_slots(slots, count, k_pages.shape[0] * k_pages.shape[1]);
  parallel_for(count, 16, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; n++) {
      store_row(call.in_as<float>(0) + n * size, k_pages, slots[n], size);
      store_row(call.in_as<float>(1) + n * size, v_pages, slots[n], size);
    }
  });
}

SDPO_OP(kv_store)
    .input("k", "f32", "N,K,E")
    .input("v", "f32", "N,K,E")
    .input("slots", "i32", "N")
    .input("k_pages", "f32|bf16", "P,B,K,E")
    .input("v_pages", "f32|bf16", "P,B,K,E")
    .output("k_pages", "", "P,B,K,E")
    .like("k_pages")
    .aliases("k_pages")
    .output("v_pages", "", "P,B,K,E")
    .like("v_pages")
    .aliases("v_pages")
    .cpu<kv_store>();

}  // namespace
}  // namespace sdpo
