#include "models/decoder.h"

#include "models/layer.h"

namespace sdpo {
namespace {

Tensor upload(const std::shared_ptr<Device>& device, const std::vector<float>& values) {
  return Tensor::from_host(device, DType::F32, {int64_t(values.size())}, values.data());
}

SlotWeights find_weights(const ParameterStore& store, const DecoderConfig& config, const std::string& slot) {
  auto get = [&](const std::string& name) { return store.has(name) ? store.view(slot, name) : Tensor(); };
  SlotWeights s;
  s.embedding = get("model.embed_tokens.weight");
  s.head = config.tied ? s.embedding : get("lm_head.weight");
  s.norm = get("model.norm.weight");
  for (int64_t i = 0; i < config.layers; i++) {
    const std::string p = str("model.layers.", i, ".");
    const std::string attention = p + "self_attn.", mlp = p + "mlp.";
    LayerWeights w;
    w.norm1 = get(p + (config.post_norm ? "post_attention_layernorm.weight" : "input_layernorm.weight"));
    w.norm2 =
        get(p + (config.post_norm ? "post_feedforward_layernorm.weight" : "post_attention_layernorm.weight"));
    w.q = get(attention + "q_proj.weight");
    w.k = get(attention + "k_proj.weight");
    w.v = get(attention + "v_proj.weight");
    w.o = get(attention + "o_proj.weight");
    w.q_bias = get(attention + "q_proj.bias");
    w.k_bias = get(attention + "k_proj.bias");
    w.v_bias = get(attention + "v_proj.bias");
    w.o_bias = get(attention + "o_proj.bias");
    w.q_norm = get(attention + "q_norm.weight");
    w.k_norm = get(attention + "k_norm.weight");
    w.gate = get(mlp + "gate_proj.weight");
    w.up = get(mlp + "up_proj.weight");
    w.down = get(mlp + "down_proj.weight");
    w.gate_bias = get(mlp + "gate_proj.bias");
    w.up_bias = get(mlp + "up_proj.bias");
    w.down_bias = get(mlp + "down_proj.bias");
    s.layers.push_back(w);
  }
  return s;
}

}  // namespace

Decoder::Decoder(DecoderConfig config, std::shared_ptr<ParameterStore> store)
    : config_(std::move(config)),
      store_(std::move(store)),
      calls_(store_->device()),
      rope_full_(upload(store_->device(), config_.rope_full.inv_freq)),
      rope_sliding_(upload(store_->device(), config_.rope_sliding.inv_freq)) {}

std::shared_ptr<const SlotWeights> Decoder::weights(const std::string& slot) const {
  std::lock_guard<std::mutex> lock(mutex_);
  auto& known = slots_[slot];
  if (!known) known = std::make_shared<SlotWeights>(find_weights(*store_, config_, slot));
  return known;
}

void Decoder::forget(const std::string& slot) {
  std::lock_guard<std::mutex> lock(mutex_);
  slots_.erase(slot);
}

Tensor Decoder::forward(const PackedBatch& batch, const std::string& slot, ForwardTape* tape) const {
  const auto held = weights(slot);
  const SlotWeights& w = *held;
  Tensor x = calls_.embed(batch.ids, w.embedding);
  for (int64_t i = 0; i < config_.layers; i++) {
    LayerTape layer;
    layer.x = x;
    x = DecoderLayer(*this, i).forward(w.layers[size_t(i)], batch, layer);
    if (!tape) continue;
    LayerTape input_only;
    input_only.x = layer.x;
    tape->layers.push_back(tape->recompute ? input_only : layer);
  }
  const Tensor rows = calls_.gather_rows(x, batch.rows);
  auto [hidden, rstd] = calls_.rmsnorm(rows, w.norm, config_.norm_eps);
  if (tape) {
    tape->batch = batch;
    tape->x_rows = rows;
    tape->rstd = rstd;
  }
  return hidden;
}

void Decoder::backward(ForwardTape& tape, const Tensor& dhidden) const {
  const auto held = weights("weight"), gradients = weights("gradient");
  const SlotWeights &w = *held, &g = *gradients;
  const Tensor drows = calls_.rmsnorm_bwd(tape.x_rows, w.norm, tape.rstd, dhidden, {}, g.norm);
  Tensor dx = Tensor::zeros(store_->device(), DType::F32, {tape.batch.ids.size(0), config_.hidden});
  calls_.scatter_rows(drows, tape.batch.rows, dx);
  for (int64_t i = config_.layers; i-- > 0;) {
    const DecoderLayer layer(*this, i);
    LayerTape activations = std::move(tape.layers.back());
    tape.layers.pop_back();
    if (tape.recompute) layer.forward(w.layers[size_t(i)], tape.batch, activations);
    dx = layer.backward(w.layers[size_t(i)], g.layers[size_t(i)], tape.batch, activations, dx);
  }
  calls_.embed_bwd(tape.batch.ids, dx, g.embedding);
}

KvCache Decoder::make_cache(int64_t pages, int64_t page_tokens) const {
  KvCache cache;
  for (int64_t i = 0; i < config_.layers; i++) {
    const Shape shape{pages, page_tokens, config_.kv_heads, config_.head_dim};
    cache.k.push_back(Tensor::empty(store_->device(), DType::F32, shape));
    cache.v.push_back(Tensor::empty(store_->device(), DType::F32, shape));
  }
  return cache;
}

Tensor Decoder::forward_cached(const CachedBatch& batch, const std::string& slot,
                               const KvCache& cache) const {
  const auto held = weights(slot);
  const SlotWeights& w = *held;
  Tensor x = calls_.embed(batch.ids, w.embedding);
  for (int64_t i = 0; i < config_.layers; i++)
    x = DecoderLayer(*this, i).forward_cached(w.layers[size_t(i)], batch, cache, x);
  return calls_.rmsnorm(calls_.gather_rows(x, batch.wanted), w.norm, config_.norm_eps).first;
}

}  // namespace sdpo
