// The ops that the decoder is made of, as functions. Attributes and optional inputs that are left out take
// the schema's defaults.
#pragma once
#include "ops/run.h"

namespace sdpo {

class Calls {
 public:
  explicit Calls(std::shared_ptr<Device> device) : device_(std::move(device)) {}
  const std::shared_ptr<Device>& device() const { return device_; }

  Tensor embed(const Tensor& ids, const Tensor& table) const;
  void embed_bwd(const Tensor& ids, const Tensor& dx, const Tensor& dtable) const;

  // -> (y, rstd)
  std::pair<Tensor, Tensor> rmsnorm(const Tensor& x, const Tensor& weight, double eps) const;
  // dx is accumulated into where given, dweight always.
  Tensor rmsnorm_bwd(const Tensor& x, const Tensor& weight, const Tensor& rstd, const Tensor& dy,
                     const Tensor& dx, const Tensor& dweight) const;

  void rope(const Tensor& x, const Tensor& positions, const Tensor& inv_freq, double factor,
            bool inverse) const;
  Tensor swiglu(const Tensor& gate, const Tensor& up) const;
  std::pair<Tensor, Tensor> swiglu_bwd(const Tensor& gate, const Tensor& up, const Tensor& dy) const;
  Tensor add(const Tensor& x, const Tensor& y) const;  // x += y
  void bias_add(const Tensor& x, const Tensor& bias) const;
  void bias_bwd(const Tensor& dy, const Tensor& dbias) const;

  // x W^T, with W [out, in] as models store it; row_invariant: see op matmul. Where W is bf16 and the
  // processor multiplies bf16, x may be rounded to bf16, except in row-invariant products.
  Tensor linear(const Tensor& x, const Tensor& weight, bool row_invariant) const;
  Tensor linear_dx(const Tensor& dy, const Tensor& weight, const Tensor& dx) const;  // dy W (+ dx)
  void linear_dw(const Tensor& dy, const Tensor& x, const Tensor& dweight) const;    // dweight += dy^T x

  // -> (out, lse)
  std::pair<Tensor, Tensor> attention(const Tensor& q, const Tensor& k, const Tensor& v,
                                      const Tensor& segments, int64_t window, double scale) const;
  std::vector<Tensor> attention_bwd(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
                                    const Tensor& lse, const Tensor& dout, const Tensor& segments,
                                    int64_t window, double scale) const;
  void kv_store(const Tensor& k, const Tensor& v, const Tensor& slots, const Tensor& k_pages,
                const Tensor& v_pages) const;
  Tensor attention_paged(const Tensor& q, const Tensor& k_pages, const Tensor& v_pages, const Tensor& rows,
                         const Tensor& page_starts, const Tensor& pages, int64_t window, double scale) const;

  Tensor gather_rows(const Tensor& x, const Tensor& index) const;
  void scatter_rows(const Tensor& dy, const Tensor& index, const Tensor& dx) const;

 private:
  std::vector<Tensor> call(const OpSchema& op, std::vector<Tensor> inputs,
                           std::vector<double> attributes = {}) const;

  std::shared_ptr<Device> device_;
};

}  // namespace sdpo
