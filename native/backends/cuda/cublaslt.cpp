#include "backends/cuda/cublaslt.h"

#include <dlfcn.h>

#include <cstdlib>
#include <vector>

#include "core/error.h"

namespace sdpo {
namespace {

std::vector<std::string> candidates() {
  if (const char* file = std::getenv("SDPO_CUBLASLT")) return {file};
  const std::string name = str("libcublasLt.so.", CUBLAS_VER_MAJOR);
  std::vector<std::string> files = {name};
  for (const char* variable : {"CUDA_HOME", "CUDA_PATH"})
    if (const char* folder = std::getenv(variable)) files.push_back(str(folder, "/lib64/", name));
  files.push_back(str(SDPO_CUDA_LIBRARIES "/", name));
  return files;
}

// Fills in the functions; the name of the first that is missing, or null.
const char* resolve(void* library, CublasLt& into) {
#define X(name)                                                             \
  into.name = reinterpret_cast<decltype(into.name)>(dlsym(library, #name)); \
  if (!into.name) return #name;
  SDPO_CUBLASLT_FUNCTIONS(X)
#undef X
  return nullptr;
}

CublasLt load() {
  CublasLt found;
  for (const std::string& file : candidates()) {
    void* library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    const char* missing = library ? resolve(library, found) : nullptr;
    if (library && !missing) {
      found.file = file;
      return found;
    }
    found.reason += str(found.reason.empty() ? "" : "; ", library ? str(file, ": no ", missing) : dlerror());
  }
  return found;
}

}  // namespace

const CublasLt& cublaslt() {
  static const CublasLt library = load();
  return library;
}

}  // namespace sdpo
