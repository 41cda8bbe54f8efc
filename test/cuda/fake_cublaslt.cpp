// A stand-in for cuBLASLt on the CPU, column-major as the library is: shows that what is asked of it is the
// product that was meant. It refuses f32 inputs with a bf16 output, and promises of alignment that do not
// hold.
#include <cublasLt.h>

#include <cmath>
#include <cstring>

struct FakeLayout {
  cudaDataType_t type;
  int64_t rows, columns, stride;
};
struct FakeDescription {
  cublasOperation_t a = CUBLAS_OP_N, b = CUBLAS_OP_N;
};
struct FakePreference {
  uint64_t workspace = 0;
  uint32_t a = 256, b = 256, c = 256, d = 256;
};
struct FakeAlgorithm {
  uint32_t a, b, c;
};

template <class To, class From>
To* as(From* from) {
  return reinterpret_cast<To*>(from);
}

static double element(const void* matrix, const FakeLayout& l, int64_t row, int64_t column) {
  const int64_t at = row + column * l.stride;
  if (l.type == CUDA_R_32F) return static_cast<const float*>(matrix)[at];
  const uint32_t bits = uint32_t(static_cast<const uint16_t*>(matrix)[at]) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

static void store(void* matrix, const FakeLayout& l, int64_t row, int64_t column, double value) {
  const int64_t at = row + column * l.stride;
  const float rounded = float(value);
  uint32_t bits;
  std::memcpy(&bits, &rounded, 4);
  if (l.type == CUDA_R_32F)
    static_cast<float*>(matrix)[at] = rounded;
  else
    static_cast<uint16_t*>(matrix)[at] = uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static bool aligned(const void* p, uint32_t bytes) { return reinterpret_cast<uintptr_t>(p) % bytes == 0; }

extern "C" {
int fake_searches = 0;

const char* cublasLtGetStatusString(cublasStatus_t) { return "fake status"; }

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = as<cublasLtContext>(new int);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, uint64_t rows,
                                          uint64_t columns, int64_t stride) {
  if (stride < int64_t(rows)) return CUBLAS_STATUS_INVALID_VALUE;
  *layout = as<cublasLtMatrixLayoutOpaque_t>(new FakeLayout{type, int64_t(rows), int64_t(columns), stride});
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(const cublasLtMatrixLayout_t layout) {
  delete as<FakeLayout>(layout);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* description, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
  if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  *description = as<cublasLtMatmulDescOpaque_t>(new FakeDescription);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(const cublasLtMatmulDesc_t description) {
  delete as<FakeDescription>(description);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t description,
                                              cublasLtMatmulDescAttributes_t which, const void* value,
                                              size_t bytes) {
  auto* d = as<FakeDescription>(description);
  cublasOperation_t* into = which == CUBLASLT_MATMUL_DESC_TRANSA   ? &d->a
                            : which == CUBLASLT_MATMUL_DESC_TRANSB ? &d->b
                                                                   : nullptr;
  if (!into || bytes != sizeof *into) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(into, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  *preference = as<cublasLtMatmulPreferenceOpaque_t>(new FakePreference);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(const cublasLtMatmulPreference_t preference) {
  delete as<FakePreference>(preference);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t which,
                                                    const void* value, size_t bytes) {
  auto* p = as<FakePreference>(preference);
  void* into = which == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES     ? static_cast<void*>(&p->workspace)
               : which == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES ? &p->a
               : which == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES ? &p->b
               : which == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES ? &p->c
               : which == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES ? &p->d
                                                                     : nullptr;
  if (!into || bytes != (into == &p->workspace ? 8 : 4)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(into, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t,
                                              cublasLtMatmulPreference_t preference, int,
                                              cublasLtMatmulHeuristicResult_t* result, int* count) {
  fake_searches++;
  *count = 0;
  if (as<FakeLayout>(a)->type != as<FakeLayout>(b)->type) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (as<FakeLayout>(a)->type == CUDA_R_32F && as<FakeLayout>(c)->type != CUDA_R_32F)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  auto* p = as<FakePreference>(preference);
  const FakeAlgorithm algorithm{p->a, p->b, std::min(p->c, p->d)};
  std::memcpy(&result->algo, &algorithm, sizeof algorithm);
  *count = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t description, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t a_layout, const void* b,
                              cublasLtMatrixLayout_t b_layout, const void* beta, const void* c,
                              cublasLtMatrixLayout_t c_layout, void* d, cublasLtMatrixLayout_t,
                              const cublasLtMatmulAlgo_t* algorithm, void*, size_t, cudaStream_t) {
  const auto& operation = *as<FakeDescription>(description);
  const auto &la = *as<FakeLayout>(a_layout), &lb = *as<FakeLayout>(b_layout),
             &lc = *as<FakeLayout>(c_layout);
  FakeAlgorithm promised;
  std::memcpy(&promised, algorithm, sizeof promised);
  if (!aligned(a, promised.a) || !aligned(b, promised.b) || !aligned(d, promised.c) || c != d)
    return CUBLAS_STATUS_INVALID_VALUE;
  const bool flip_a = operation.a == CUBLAS_OP_T, flip_b = operation.b == CUBLAS_OP_T;
  const int64_t depth = flip_a ? la.rows : la.columns;
  if (depth != (flip_b ? lb.columns : lb.rows) || lc.rows != (flip_a ? la.columns : la.rows) ||
      lc.columns != (flip_b ? lb.rows : lb.columns))
    return CUBLAS_STATUS_INVALID_VALUE;
  const float scale = *static_cast<const float*>(alpha), old = *static_cast<const float*>(beta);
  for (int64_t i = 0; i < lc.rows; i++)
    for (int64_t j = 0; j < lc.columns; j++) {
      double sum = 0;
      for (int64_t k = 0; k < depth; k++)
        sum +=
            element(a, la, flip_a ? k : i, flip_a ? i : k) * element(b, lb, flip_b ? j : k, flip_b ? k : j);
      store(d, lc, i, j, scale * sum + (old ? old * element(c, lc, i, j) : 0));
    }
  return CUBLAS_STATUS_SUCCESS;
}
}
