#include "backends/cpu/gemm_onednn.h"

#include "core/error.h"

#if SDPO_HAVE_ONEDNN
#include <array>
#include <dnnl.hpp>
#include <map>

// There only where oneDNN's own threads are OpenMP's.
extern "C" void omp_set_num_threads(int) __attribute__((weak));

namespace sdpo {
namespace {

void keep_to_this_thread() {
  thread_local bool done = false;
  if (!done && omp_set_num_threads) omp_set_num_threads(1);
  done = true;
}

struct Product {
  dnnl::matmul primitive;
  dnnl::memory a, b, c;
};

// m, n, k, ld and transposition of A and of B, ldc, beta.
using Key = std::array<int64_t, 9>;

const dnnl::engine& processor() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

Product make_product(const Key& x) {
  using dnnl::memory;
  const auto [m, n, k, lda, ta, ldb, tb, ldc, beta] = x;
  const auto strides = [](int64_t ld, bool transposed) {
    return transposed ? memory::dims{1, ld} : memory::dims{ld, 1};
  };
  const memory::desc a({m, k}, memory::data_type::bf16, strides(lda, ta != 0)),
      b({k, n}, memory::data_type::bf16, strides(ldb, tb != 0)),
      c({m, n}, memory::data_type::f32, strides(ldc, false));
  dnnl::primitive_attr attributes;
  if (beta != 0) {
    dnnl::post_ops add;
    add.append_sum();
    attributes.set_post_ops(add);
  }
  const dnnl::matmul::primitive_desc description({a, b, c}, attributes, processor());
  return {dnnl::matmul(description), memory(a, processor(), nullptr), memory(b, processor(), nullptr),
          memory(c, processor(), nullptr)};
}

// Making a primitive costs more than a small product: the last ones are kept, for each thread its own.
Product& find_product(const Key& key) {
  thread_local std::map<Key, Product> kept;
  auto found = kept.find(key);
  if (found != kept.end()) return found->second;
  if (kept.size() >= 256) kept.clear();
  return kept.emplace(key, make_product(key)).first->second;
}

}  // namespace

bool onednn_built() { return true; }

std::string onednn_name() {
  const dnnl_version_t* v = dnnl_version();
  return str("oneDNN ", v->major, ".", v->minor, ".", v->patch);
}

void onednn_tile(int64_t m, int64_t n, int64_t k, const GemmOperand& a, const GemmOperand& b, float beta,
                 float* c, int64_t ldc) {
  keep_to_this_thread();
  const dnnl_status_t status = dnnl_sgemm(a.transposed ? 'T' : 'N', b.transposed ? 'T' : 'N', m, n, k, 1.f,
                                          static_cast<const float*>(a.data), a.ld,
                                          static_cast<const float*>(b.data), b.ld, beta, c, ldc);
  if (status != dnnl_success) throw Error("ERR_SDPO_DEVICE", str("oneDNN's sgemm gave status ", int(status)));
}

void onednn_bf16_tile(int64_t m, int64_t n, int64_t k, const GemmOperand& a, const GemmOperand& b, float beta,
                      float* c, int64_t ldc) {
  keep_to_this_thread();
  thread_local dnnl::stream stream(processor());
  Product& product = find_product({m, n, k, a.ld, a.transposed, b.ld, b.transposed, ldc, beta != 0});
  product.a.set_data_handle(const_cast<void*>(a.data));
  product.b.set_data_handle(const_cast<void*>(b.data));
  product.c.set_data_handle(c);
  product.primitive.execute(
      stream, {{DNNL_ARG_SRC, product.a}, {DNNL_ARG_WEIGHTS, product.b}, {DNNL_ARG_DST, product.c}});
  stream.wait();
}

}  // namespace sdpo

#else

namespace sdpo {

bool onednn_built() { return false; }
std::string onednn_name() { return "oneDNN"; }

void onednn_tile(int64_t, int64_t, int64_t, const GemmOperand&, const GemmOperand&, float, float*, int64_t) {
  throw Error("ERR_SDPO_DEVICE", "this build has no oneDNN");
}

void onednn_bf16_tile(int64_t, int64_t, int64_t, const GemmOperand&, const GemmOperand&, float, float*,
                      int64_t) {
  throw Error("ERR_SDPO_DEVICE", "this build has no oneDNN");
}

}  // namespace sdpo

#endif
