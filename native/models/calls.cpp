#include "models/calls.h"

namespace sdpo {

std::vector<Tensor> Calls::call(const OpSchema& op, std::vector<Tensor> inputs,
                                std::vector<double> attributes) const {
  inputs.resize(op.inputs().size());
  for (size_t i = attributes.size(); i < op.attributes().size(); i++)
    attributes.push_back(op.attributes()[i].fallback);
  return run_op(op, *device_, inputs, attributes);
}

Tensor Calls::embed(const Tensor& ids, const Tensor& table) const {
  static const OpSchema& op = find_op("embed_fwd");
  return call(op, {ids, table})[0];
}

void Calls::embed_bwd(const Tensor& ids, const Tensor& dx, const Tensor& dtable) const {
  static const OpSchema& op = find_op("embed_bwd");
  call(op, {ids, dx, dtable});
}

std::pair<Tensor, Tensor> Calls::rmsnorm(const Tensor& x, const Tensor& weight, double eps) const {
  static const OpSchema& op = find_op("rmsnorm_fwd");
  auto out = call(op, {x, weight}, {eps});
  return {out[0], out[1]};
}

Tensor Calls::rmsnorm_bwd(const Tensor& x, const Tensor& weight, const Tensor& rstd, const Tensor& dy,
                          const Tensor& dx, const Tensor& dweight) const {
  static const OpSchema& op = find_op("rmsnorm_bwd");
  return call(op, {x, weight, rstd, dy, dx, dweight})[0];
}

void Calls::rope(const Tensor& x, const Tensor& positions, const Tensor& inv_freq, double factor,
                 bool inverse) const {
  static const OpSchema& op = find_op("rope");
  call(op, {x, positions, inv_freq}, {factor, inverse ? 1.0 : 0.0});
}

Tensor Calls::swiglu(const Tensor& gate, const Tensor& up) const {
  static const OpSchema& op = find_op("swiglu_fwd");
  return call(op, {gate, up})[0];
}

std::pair<Tensor, Tensor> Calls::swiglu_bwd(const Tensor& gate, const Tensor& up, const Tensor& dy) const {
  static const OpSchema& op = find_op("swiglu_bwd");
  auto out = call(op, {gate, up, dy});
  return {out[0], out[1]};
}

Tensor Calls::add(const Tensor& x, const Tensor& y) const {
  static const OpSchema& op = find_op("add");
  return call(op, {x, y})[0];
}

void Calls::bias_add(const Tensor& x, const Tensor& bias) const {
  static const OpSchema& op = find_op("bias_add");
  call(op, {x, bias});
}

void Calls::bias_bwd(const Tensor& dy, const Tensor& dbias) const {
  static const OpSchema& op = find_op("bias_bwd");
  call(op, {dy, dbias});
}

static const OpSchema& matmul_op() {
  static const OpSchema& op = find_op("matmul");
  return op;
}

Tensor Calls::linear(const Tensor& x, const Tensor& weight, bool row_invariant) const {
  return call(matmul_op(), {x, weight}, {0, 1, row_invariant ? 1.0 : 0.0, row_invariant ? 0.0 : 1.0})[0];
}

Tensor Calls::linear_dx(const Tensor& dy, const Tensor& weight, const Tensor& dx) const {
  return call(matmul_op(), {dy, weight, dx}, {0, 0, 0, 1})[0];
}

void Calls::linear_dw(const Tensor& dy, const Tensor& x, const Tensor& dweight) const {
  call(matmul_op(), {dy, x, dweight}, {1, 0, 0});
}

std::pair<Tensor, Tensor> Calls::attention(const Tensor& q, const Tensor& k, const Tensor& v,
                                           const Tensor& segments, int64_t window, double scale) const {
  static const OpSchema& op = find_op("attention_fwd");
  auto out = call(op, {q, k, v, segments}, {double(window), scale});
  return {out[0], out[1]};
}

std::vector<Tensor> Calls::attention_bwd(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
                                         const Tensor& lse, const Tensor& dout, const Tensor& segments,
                                         int64_t window, double scale) const {
  static const OpSchema& op = find_op("attention_bwd");
  return call(op, {q, k, v, out, lse, dout, segments}, {double(window), scale});
}

void Calls::kv_store(const Tensor& k, const Tensor& v, const Tensor& slots, const Tensor& k_pages,
                     const Tensor& v_pages) const {
  static const OpSchema& op = find_op("kv_store");
  call(op, {k, v, slots, k_pages, v_pages});
}

Tensor Calls::attention_paged(const Tensor& q, const Tensor& k_pages, const Tensor& v_pages,
                              const Tensor& rows, const Tensor& page_starts, const Tensor& pages,
                              int64_t window, double scale) const {
  static const OpSchema& op = find_op("attention_paged");
  return call(op, {q, k_pages, v_pages, rows, page_starts, pages}, {double(window), scale})[0];
}

Tensor Calls::gather_rows(const Tensor& x, const Tensor& index) const {
  static const OpSchema& op = find_op("gather_rows");
  return call(op, {x, index})[0];
}

void Calls::scatter_rows(const Tensor& dy, const Tensor& index, const Tensor& dx) const {
  static const OpSchema& op = find_op("scatter_rows");
  call(op, {dy, index, dx});
}

}  // namespace sdpo
