// No library under SIMT: our own kernels run.
#include "backends/gemm_library.h"

namespace sdpo {

bool library_gemm(const GpuCall&, const GemmArgs&, void*, uint64_t) { return false; }
std::string gemm_library_name() { return "none"; }

}  // namespace sdpo
