// ModelHandle: a parameter store and the decoder over it.
#include <cmath>

#include "binding/env.h"
#include "binding/handles.h"
#include "io/read_tensor.h"
#include "models/decoder.h"

namespace sdpo {

const char* const kTape = "tape";
const char* const kCache = "cache";

namespace {

int64_t integer(const Napi::Object& o, const char* name) { return o.Get(name).ToNumber().Int64Value(); }
bool boolean(const Napi::Object& o, const char* name) { return o.Get(name).ToBoolean(); }

RopeTable rope_from(const Napi::Object& o) {
  const Napi::Float32Array values = o.Get("invFreq").As<Napi::Float32Array>();
  RopeTable table;
  table.inv_freq.assign(values.Data(), values.Data() + values.ElementLength());
  table.attention_factor = o.Get("attentionFactor").ToNumber().DoubleValue();
  return table;
}

DecoderConfig config_from(const Napi::Object& o) {
  DecoderConfig c;
  c.hidden = integer(o, "hiddenSize");
  c.layers = integer(o, "layers");
  c.heads = integer(o, "heads");
  c.kv_heads = integer(o, "keyValueHeads");
  c.head_dim = integer(o, "headDim");
  c.norm_eps = o.Get("normEps").ToNumber().DoubleValue();
  c.tied = boolean(o, "tieEmbeddings");
  c.post_norm = std::string(o.Get("normPlacement").ToString()) == "post";
  c.window = shape_from(o.Get("slidingWindow"));
  c.rope_full = rope_from(o.Get("ropeFull").As<Napi::Object>());
  c.rope_sliding = rope_from(o.Get("ropeSliding").As<Napi::Object>());
  return c;
}

std::vector<Parameter> parameters_from(const Napi::Array& array) {
  std::vector<Parameter> parameters;
  for (uint32_t i = 0; i < array.Length(); i++) {
    const Napi::Object o = array.Get(i).As<Napi::Object>();
    parameters.push_back({o.Get("name").ToString(), shape_from(o.Get("shape")), 0});
  }
  return parameters;
}

Tensor tensor_of(const Napi::Object& o, const char* name) { return TensorHandle::from(o.Get(name)); }

}  // namespace

void ModelHandle::define(Napi::Env env, Napi::Object exports) {
  exports.Set(
      "ModelHandle",
      DefineClass(
          env, "ModelHandle",
          {InstanceMethod<&ModelHandle::add_slot>("addSlot"),
           InstanceMethod<&ModelHandle::remove_slot>("removeSlot"),
           InstanceMethod<&ModelHandle::zero_slot>("zeroSlot"),
           InstanceMethod<&ModelHandle::has_slot>("hasSlot"),
           InstanceMethod<&ModelHandle::parameters>("parameters"), InstanceMethod<&ModelHandle::flat>("flat"),
           InstanceMethod<&ModelHandle::view>("view"), InstanceMethod<&ModelHandle::head>("head"),
           InstanceMethod<&ModelHandle::load>("load"), InstanceMethod<&ModelHandle::forward>("forward"),
           InstanceMethod<&ModelHandle::backward>("backward"),
           InstanceMethod<&ModelHandle::make_cache>("makeCache"),
           InstanceMethod<&ModelHandle::forward_cached>("forwardCached"),
           InstanceMethod<&ModelHandle::release>("release"),
           InstanceMethod<&ModelHandle::dispose>("dispose")}));
}

// new ModelHandle(device, config, parameters)
ModelHandle::ModelHandle(const Napi::CallbackInfo& info) : Napi::ObjectWrap<ModelHandle>(info) {
  guarded(info.Env(), [&]() -> Napi::Value {
    DeviceHandle& device = DeviceHandle::from(info[0]);
    queue_ = device.queue;
    auto store = std::make_shared<ParameterStore>(device.device, parameters_from(info[2].As<Napi::Array>()));
    decoder_ = std::make_shared<Decoder>(config_from(info[1].As<Napi::Object>()), store);
    return info.Env().Undefined();
  });
}

const std::shared_ptr<Decoder>& ModelHandle::decoder() const {
  if (!decoder_) throw Error("ERR_SDPO_DISPOSED", "the model has been disposed of");
  return decoder_;
}

Napi::Value ModelHandle::add_slot(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    decoder()->store().add_slot(info[0].ToString(), dtype_from(info[1]));
    return info.Env().Undefined();
  });
}

Napi::Value ModelHandle::remove_slot(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    decoder()->store().remove_slot(info[0].ToString());
    decoder()->forget(info[0].ToString());
    return info.Env().Undefined();
  });
}

// zeroSlot(slot) -> promise: sets it to 0, in its turn among the device's jobs.
Napi::Value ModelHandle::zero_slot(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const Tensor slot = decoder()->store().flat(info[0].ToString());
    return submit(
        info.Env(), queue_, nullptr, [slot] { slot.fill_zero(); },
        [](Napi::Env env) -> Napi::Value { return env.Undefined(); });
  });
}

Napi::Value ModelHandle::has_slot(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    return Napi::Boolean::New(info.Env(), decoder()->store().has_slot(info[0].ToString()));
  });
}

Napi::Value ModelHandle::parameters(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    Napi::Array list = Napi::Array::New(info.Env());
    for (const Parameter& p : decoder()->store().parameters()) {
      Napi::Array shape = Napi::Array::New(info.Env());
      for (int64_t n : p.shape) shape[shape.Length()] = double(n);
      Napi::Object o = Napi::Object::New(info.Env());
      o.Set("name", p.name);
      o.Set("shape", shape);
      o.Set("offset", double(p.offset));
      list[list.Length()] = o;
    }
    return list;
  });
}

// flat(slot, "all" | "matrices" | "vectors")
Napi::Value ModelHandle::flat(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const std::string slot = info[0].ToString(), part = info[1].ToString();
    const ParameterStore& store = decoder()->store();
    return TensorHandle::wrap(info.Env(), part == "matrices"  ? store.matrices(slot)
                                          : part == "vectors" ? store.vectors(slot)
                                                              : store.flat(slot));
  });
}

Napi::Value ModelHandle::view(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    return TensorHandle::wrap(info.Env(), decoder()->store().view(info[0].ToString(), info[1].ToString()));
  });
}

Napi::Value ModelHandle::head(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    return TensorHandle::wrap(info.Env(), decoder()->weights(info[0].ToString())->head);
  });
}

// load(slot, name, path, { fileSize, type, offset, bytes, rows, columns, pairedHeadDim })
Napi::Value ModelHandle::load(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const Tensor target = decoder()->store().view(info[0].ToString(), info[1].ToString());
    const std::string path = info[2].ToString();
    const Napi::Object o = info[3].As<Napi::Object>();
    TensorSource source{source_type(o.Get("type").ToString()),
                        integer(o, "offset"),
                        integer(o, "bytes"),
                        integer(o, "rows"),
                        integer(o, "columns"),
                        integer(o, "pairedHeadDim")};
    const int64_t file_size = integer(o, "fileSize");
    return submit(
        info.Env(), queue_, nullptr,
        [target, path, source, file_size] {
          if (element_count({source.rows, source.columns}) != target.elements())
            throw Error("ERR_SDPO_MODEL", str(path, ": ", source.rows, " x ", source.columns,
                                              " elements for ", shape_text(target.shape())));
          std::unique_ptr<uint8_t[]> host(new uint8_t[target.bytes()]);
          read_tensor(MappedFile(path, file_size), source, target.dtype(), host.get());
          target.write(host.get());
        },
        [](Napi::Env env) -> Napi::Value { return env.Undefined(); });
  });
}

// forward({ ids, positions, segments, rows }, slot, { keep, recompute }, cancel) -> { hidden, tape }
Napi::Value ModelHandle::forward(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const Napi::Object b = info[0].As<Napi::Object>(), options = info[2].As<Napi::Object>();
    const PackedBatch batch{tensor_of(b, "ids"), tensor_of(b, "positions"), tensor_of(b, "segments"),
                            tensor_of(b, "rows")};
    auto tape = boolean(options, "keep") ? std::make_shared<ForwardTape>() : nullptr;
    if (tape) tape->recompute = boolean(options, "recompute");
    auto hidden = std::make_shared<Tensor>();
    return submit(
        info.Env(), queue_, cancel_flag(info[3]),
        [decoder = decoder(), batch, slot = std::string(info[1].ToString()), tape, hidden] {
          *hidden = decoder->forward(batch, slot, tape.get());
        },
        [hidden, tape](Napi::Env env) -> Napi::Value {
          Napi::Object out = Napi::Object::New(env);
          out.Set("hidden", TensorHandle::wrap(env, *hidden));
          if (tape) out.Set("tape", make_external(env, kTape, tape));
          return out;
        });
  });
}

// backward(tape, dHidden, cancel): the tape can be used once.
Napi::Value ModelHandle::backward(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    auto tape = from_external<ForwardTape>(info[0], kTape);
    const Tensor dhidden = TensorHandle::from(info[1]);
    return submit(
        info.Env(), queue_, cancel_flag(info[2]),
        [decoder = decoder(), tape, dhidden] {
          if (!tape->x_rows) throw Error("ERR_SDPO_ARGUMENT", "backward: this forward pass was already used");
          ForwardTape used;
          std::swap(used, *tape);  // let go of, also where the pass fails
          decoder->backward(used, dhidden);
        },
        [](Napi::Env env) -> Napi::Value { return env.Undefined(); });
  });
}

Napi::Value ModelHandle::make_cache(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const int64_t pages = info[0].ToNumber().Int64Value(), tokens = info[1].ToNumber().Int64Value();
    return make_external(info.Env(), kCache, std::make_shared<KvCache>(decoder()->make_cache(pages, tokens)));
  });
}

// forwardCached({ ids, positions, slots, rows, pageStarts, pages, wanted }, slot, cache, cancel) -> hidden
Napi::Value ModelHandle::forward_cached(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const Napi::Object b = info[0].As<Napi::Object>();
    const CachedBatch batch{tensor_of(b, "ids"),   tensor_of(b, "positions"),  tensor_of(b, "slots"),
                            tensor_of(b, "rows"),  tensor_of(b, "pageStarts"), tensor_of(b, "pages"),
                            tensor_of(b, "wanted")};
    auto cache = from_external<KvCache>(info[2], kCache);
    auto hidden = std::make_shared<Tensor>();
    return submit(
        info.Env(), queue_, cancel_flag(info[3]),
        [decoder = decoder(), batch, slot = std::string(info[1].ToString()), cache, hidden] {
          *hidden = decoder->forward_cached(batch, slot, *cache);
        },
        [hidden](Napi::Env env) -> Napi::Value { return TensorHandle::wrap(env, *hidden); });
  });
}

// release(tape | cache)
Napi::Value ModelHandle::release(const Napi::CallbackInfo& info) {
  if (info[0].IsExternal()) info[0].As<Napi::External<HeldObject>>().Data()->object.reset();
  return info.Env().Undefined();
}

Napi::Value ModelHandle::dispose(const Napi::CallbackInfo& info) {
  decoder_.reset();
  return info.Env().Undefined();
}

}  // namespace sdpo
