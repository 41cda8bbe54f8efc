#include "core/cpu.h"

#include <atomic>
#include <cstdlib>

#include "core/error.h"
#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace sdpo {
namespace {

Isa parse(const std::string& name) {
  for (Isa isa : available_isas())
    if (name == isa_name(isa)) return isa;
  std::string have;
  for (Isa isa : available_isas()) have += str(have.empty() ? "" : ", ", isa_name(isa));
  throw Error("ERR_SDPO_DEVICE", str("instruction set '", name, "': this processor runs ", have));
}

std::atomic<int>& chosen() {
  static std::atomic<int> isa([] {
    const char* wish = std::getenv("SDPO_ISA");
    return int(wish && *wish ? parse(wish) : available_isas().back());
  }());
  return isa;
}

}  // namespace

const char* isa_name(Isa isa) {
  return isa == Isa::Avx512 ? "avx512" : isa == Isa::Avx2 ? "avx2" : "baseline";
}

std::vector<Isa> available_isas() {
  std::vector<Isa> list{Isa::Baseline};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    list.push_back(Isa::Avx2);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
      list.push_back(Isa::Avx512);
  }
#endif
  return list;
}

Isa current_isa() { return Isa(chosen().load(std::memory_order_relaxed)); }

void set_isa(const std::string& name) { chosen() = int(parse(name)); }

bool cpu_has_bf16() {
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  const bool avx512_bf16 = __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & (1u << 5));
  const bool amx_bf16 = __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & (1u << 22));
  return current_isa() == Isa::Avx512 && (avx512_bf16 || amx_bf16);
#else
  return false;
#endif
}

}  // namespace sdpo
