// Runs library_gemm on the CPU with the stand-in for cuBLASLt and compares with a plain row-major product in
// double. Prints "<products> products, <searches> searches", or what went wrong. No argument: what the loader
// says.
#include "backends/gemm_library.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

extern "C" {
cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
cudaError_t cudaSetDevice(int) { return cudaSuccess; }
cudaError_t cudaGetLastError() { return cudaSuccess; }
const char* cudaGetErrorString(cudaError_t) { return ""; }
const char* cudaGetErrorName(cudaError_t) { return ""; }
}

namespace {

struct Case {
  bool transpose_a, transpose_b;
  int32_t input, output;
  float beta;
};

// Bytes from an address that is a multiple of 256, as device memory is.
struct Matrix {
  explicit Matrix(int64_t bytes) : memory(size_t(bytes) + 256), size(bytes) {}
  char* data() { return memory.data() + (256 - reinterpret_cast<uintptr_t>(memory.data()) % 256) % 256; }
  std::vector<char> memory;
  int64_t size;
};

void put(char* bytes, int32_t dtype, int64_t at, float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  const uint16_t upper = uint16_t(bits >> 16);  // small integers: exact in bf16
  if (dtype == SDPO_F32) std::memcpy(&bytes[size_t(at) * 4], &value, 4);
  if (dtype == SDPO_BF16) std::memcpy(&bytes[size_t(at) * 2], &upper, 2);
}

float get(const char* bytes, int32_t dtype, int64_t at) {
  uint32_t bits = 0;
  uint16_t upper = 0;
  if (dtype == SDPO_F32) std::memcpy(&bits, &bytes[size_t(at) * 4], 4);
  if (dtype == SDPO_BF16) {
    std::memcpy(&upper, &bytes[size_t(at) * 2], 2);
    bits = uint32_t(upper) << 16;
  }
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

// Rows longer than their elements by `pad`, and a first element that is only `offset` elements aligned.
bool right(const Case& c, int64_t m, int64_t n, int64_t k, int64_t pad, int64_t offset) {
  const int64_t a_stride = (c.transpose_a ? m : k) + pad, b_stride = (c.transpose_b ? k : n) + pad,
                c_stride = n + pad;
  Matrix a(4 * (offset + (m + k) * (m + k + pad))), b(4 * (offset + (n + k) * (n + k + pad))),
      out(4 * (offset + m * c_stride));
  for (int64_t i = offset; i < a.size / 4; i++) put(a.data(), c.input, i, float((i * 7 + 3) % 5) - 2);
  for (int64_t i = offset; i < b.size / 4; i++) put(b.data(), c.input, i, float((i * 5 + 1) % 7) - 3);
  for (int64_t i = offset; i < out.size / 4; i++) put(out.data(), c.output, i, float(i % 3));
  const std::vector<char> before(out.data(), out.data() + out.size);
  const int64_t input_bytes = c.input == SDPO_F32 ? 4 : 2, output_bytes = c.output == SDPO_F32 ? 4 : 2;
  const sdpo_op_call raw{};
  const sdpo::DeviceProperties properties;
  const sdpo::GemmArgs args{m,
                            n,
                            k,
                            a.data() + offset * input_bytes,
                            b.data() + offset * input_bytes,
                            out.data() + offset * output_bytes,
                            a_stride,
                            b_stride,
                            c_stride,
                            c.transpose_a,
                            c.transpose_b,
                            c.input,
                            c.output,
                            c.beta};
  const bool possible = c.input == SDPO_BF16 || c.output == SDPO_F32;
  if (sdpo::library_gemm(sdpo::GpuCall(raw, properties), args, nullptr, 0) != possible) return false;
  if (!possible) return !std::memcmp(out.data(), before.data(), before.size());
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < n + pad; j++) {
      const int64_t at = offset + i * c_stride + j;
      double expected = j < n ? c.beta * get(before.data(), c.output, at) : get(before.data(), c.output, at);
      for (int64_t x = 0; j < n && x < k; x++)
        expected +=
            double(get(a.data(), c.input, offset + (c.transpose_a ? x * a_stride + i : i * a_stride + x))) *
            get(b.data(), c.input, offset + (c.transpose_b ? j * b_stride + x : x * b_stride + j));
      if (get(out.data(), c.output, at) != float(expected)) return false;
    }
  return true;
}

}  // namespace

int main(int count, char**) {
  if (count == 1) return std::puts(sdpo::gemm_library_name().c_str()) < 0;
  int products = 0;
  for (int bits = 0; bits < 32; bits++) {
    const Case c{bool(bits & 1), bool(bits & 2), bits & 4 ? SDPO_BF16 : SDPO_F32,
                 bits & 8 ? SDPO_BF16 : SDPO_F32, bits & 16 ? 1.0f : 0.0f};
    for (int64_t pad : {0, 3})
      for (int64_t offset : {0, 1})
        for (int again = 0; again < 2; again++, products++)
          if (!right(c, 5, 3, 4, pad, offset))
            return std::printf("wrong: case %d, pad %d, offset %d\n", bits, int(pad), int(offset)), 1;
  }
  void* fake = dlopen(std::getenv("SDPO_CUBLASLT"), RTLD_NOW);
  std::printf("%d products, %d searches\n", products, *static_cast<int*>(dlsym(fake, "fake_searches")));
}
