// cuBLASLt, loaded when it is first needed: SDPO_CUBLASLT names a file; else the system's library path, the
// toolkits of CUDA_HOME and CUDA_PATH, and the toolkit of the build are looked through.
#pragma once
#include <cublasLt.h>

#include <string>

namespace sdpo {

struct CublasLt {
  std::string file;    // empty where there is none
  std::string reason;  // then: every file that was tried, and what the loader said

#define SDPO_CUBLASLT_FUNCTIONS(X)        \
  X(cublasLtCreate)                       \
  X(cublasLtGetStatusString)              \
  X(cublasLtMatmul)                       \
  X(cublasLtMatmulAlgoGetHeuristic)       \
  X(cublasLtMatmulDescCreate)             \
  X(cublasLtMatmulDescDestroy)            \
  X(cublasLtMatmulDescSetAttribute)       \
  X(cublasLtMatmulPreferenceCreate)       \
  X(cublasLtMatmulPreferenceDestroy)      \
  X(cublasLtMatmulPreferenceSetAttribute) \
  X(cublasLtMatrixLayoutCreate)           \
  X(cublasLtMatrixLayoutDestroy)
#define X(name) decltype(&::name) name = nullptr;
  SDPO_CUBLASLT_FUNCTIONS(X)
#undef X
};

const CublasLt& cublaslt();

}  // namespace sdpo
