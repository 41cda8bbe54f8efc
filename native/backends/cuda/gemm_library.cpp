// Matrix products by cuBLASLt. It is column-major: the row-major C = A B is computed as C' = B' A'.
#include "backends/gemm_library.h"

#include <map>
#include <memory>
#include <mutex>
#include <tuple>

#include "backends/cuda/check.h"
#include "backends/cuda/cublaslt.h"

namespace sdpo {
namespace {

void check(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw Error("ERR_SDPO_DEVICE", str("cuBLASLt: ", what, ": ", cublaslt().cublasLtGetStatusString(status)));
}

struct Release {
  void operator()(cublasLtMatmulDesc_t p) const { cublaslt().cublasLtMatmulDescDestroy(p); }
  void operator()(cublasLtMatrixLayout_t p) const { cublaslt().cublasLtMatrixLayoutDestroy(p); }
  void operator()(cublasLtMatmulPreference_t p) const { cublaslt().cublasLtMatmulPreferenceDestroy(p); }
};
template <class Pointer>
using Owned = std::unique_ptr<std::remove_pointer_t<Pointer>, Release>;
using Layout = Owned<cublasLtMatrixLayout_t>;
using Description = Owned<cublasLtMatmulDesc_t>;
using Preference = Owned<cublasLtMatmulPreference_t>;

cudaDataType_t type_of(int32_t dtype) { return dtype == SDPO_BF16 ? CUDA_R_16BF : CUDA_R_32F; }

// Rows and columns as stored, row-major: what cuBLASLt sees is the transpose.
Layout make_layout(int32_t dtype, int64_t rows, int64_t columns, int64_t stride) {
  cublasLtMatrixLayout_t layout = nullptr;
  check(cublaslt().cublasLtMatrixLayoutCreate(&layout, type_of(dtype), uint64_t(columns), uint64_t(rows),
                                              stride),
        "matrix layout");
  return Layout(layout);
}

Description make_description(const GemmArgs& args) {
  cublasLtMatmulDesc_t raw = nullptr;
  check(cublaslt().cublasLtMatmulDescCreate(&raw, CUBLAS_COMPUTE_32F, CUDA_R_32F), "matmul description");
  Description description(raw);
  auto transpose = [&](cublasLtMatmulDescAttributes_t which, bool flip) {
    const cublasOperation_t operation = flip ? CUBLAS_OP_T : CUBLAS_OP_N;
    check(cublaslt().cublasLtMatmulDescSetAttribute(raw, which, &operation, sizeof operation), "transpose");
  };
  transpose(CUBLASLT_MATMUL_DESC_TRANSA, args.transpose_b);
  transpose(CUBLASLT_MATMUL_DESC_TRANSB, args.transpose_a);
  return description;
}

// Of a pointer, up to what the library knows to use.
uint32_t alignment(const void* pointer) {
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  return uint32_t(std::min<uintptr_t>(address & (~address + 1), 256));
}

struct Plan {
  Description description;
  Layout a, b, c;
  cublasLtMatmulAlgo_t algorithm;
  bool possible = false;
};

Preference make_preference(const GemmArgs& args, uint64_t workspace_bytes) {
  cublasLtMatmulPreference_t raw = nullptr;
  check(cublaslt().cublasLtMatmulPreferenceCreate(&raw), "preference");
  Preference preference(raw);
  auto set = [&](cublasLtMatmulPreferenceAttributes_t which, auto value) {
    check(cublaslt().cublasLtMatmulPreferenceSetAttribute(raw, which, &value, sizeof value), "preference");
  };
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment(args.b));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment(args.a));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment(args.c));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment(args.c));
  return preference;
}

Plan make_plan(cublasLtHandle_t handle, const GemmArgs& args, uint64_t workspace_bytes) {
  Plan plan;
  plan.description = make_description(args);
  plan.a = args.transpose_a ? make_layout(args.input_dtype, args.k, args.m, args.a_stride)
                            : make_layout(args.input_dtype, args.m, args.k, args.a_stride);
  plan.b = args.transpose_b ? make_layout(args.input_dtype, args.n, args.k, args.b_stride)
                            : make_layout(args.input_dtype, args.k, args.n, args.b_stride);
  plan.c = make_layout(args.output_dtype, args.m, args.n, args.c_stride);
  const Preference preference = make_preference(args, workspace_bytes);
  cublasLtMatmulHeuristicResult_t result{};
  int count = 0;
  const cublasStatus_t status = cublaslt().cublasLtMatmulAlgoGetHeuristic(
      handle, plan.description.get(), plan.b.get(), plan.a.get(), plan.c.get(), plan.c.get(),
      preference.get(), 1, &result, &count);
  plan.algorithm = result.algo;
  plan.possible = status == CUBLAS_STATUS_SUCCESS && count == 1;
  return plan;
}

using Key = std::tuple<int, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, bool, bool, int32_t,
                       int32_t, uint32_t, uint32_t, uint32_t, uint64_t>;

// Handles and plans live as long as the process: the last kernel may outlive every device object.
class Library {
 public:
  const Plan& plan(int device, const GemmArgs& args, uint64_t workspace_bytes) {
    const Key key{device,
                  args.m,
                  args.n,
                  args.k,
                  args.a_stride,
                  args.b_stride,
                  args.c_stride,
                  args.transpose_a,
                  args.transpose_b,
                  args.input_dtype,
                  args.output_dtype,
                  alignment(args.a),
                  alignment(args.b),
                  alignment(args.c),
                  workspace_bytes};
    auto found = plans_.find(key);
    if (found != plans_.end()) return found->second;
    if (plans_.size() >= 4096) plans_.clear();
    return plans_.emplace(key, make_plan(handle(device), args, workspace_bytes)).first->second;
  }
  cublasLtHandle_t handle(int device) {
    cublasLtHandle_t& handle = handles_[device];
    if (!handle) check(cublaslt().cublasLtCreate(&handle), "handle");
    return handle;
  }
  std::mutex mutex;

 private:
  std::map<Key, Plan> plans_;
  std::map<int, cublasLtHandle_t> handles_;
};

Library& library() {
  static auto* instance = new Library;
  return *instance;
}

}  // namespace

bool library_gemm(const GpuCall& call, const GemmArgs& args, void* workspace, uint64_t workspace_bytes) {
  if (!args.m || !args.n) return true;
  if (!args.k || cublaslt().file.empty()) return false;
  int device = 0;
  check_cuda(cudaGetDevice(&device), "current device");
  std::lock_guard<std::mutex> lock(library().mutex);
  const Plan& plan = library().plan(device, args, workspace_bytes);
  if (!plan.possible) return false;
  const float one = 1;
  check(cublaslt().cublasLtMatmul(library().handle(device), plan.description.get(), &one, args.b,
                                  plan.b.get(), args.a, plan.a.get(), &args.beta, args.c, plan.c.get(),
                                  args.c, plan.c.get(), &plan.algorithm, workspace, workspace_bytes,
                                  static_cast<cudaStream_t>(call.stream())),
        "matmul");
  return true;
}

std::string gemm_library_name() {
  const CublasLt& found = cublaslt();
  return found.file.empty() ? str("none (", found.reason, ")") : found.file;
}

}  // namespace sdpo
