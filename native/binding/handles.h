// Handles of the engine, and native objects that JavaScript only passes around (tapes, caches).
#pragma once
#include "binding/env.h"

namespace sdpo {

class Decoder;

class ModelHandle : public Napi::ObjectWrap<ModelHandle> {
 public:
  static void define(Napi::Env env, Napi::Object exports);
  explicit ModelHandle(const Napi::CallbackInfo& info);

 private:
  const std::shared_ptr<Decoder>& decoder() const;
  Napi::Value add_slot(const Napi::CallbackInfo& info);
  Napi::Value remove_slot(const Napi::CallbackInfo& info);
  Napi::Value zero_slot(const Napi::CallbackInfo& info);
  Napi::Value has_slot(const Napi::CallbackInfo& info);
  Napi::Value parameters(const Napi::CallbackInfo& info);
  Napi::Value flat(const Napi::CallbackInfo& info);
  Napi::Value view(const Napi::CallbackInfo& info);
  Napi::Value head(const Napi::CallbackInfo& info);
  Napi::Value load(const Napi::CallbackInfo& info);
  Napi::Value forward(const Napi::CallbackInfo& info);
  Napi::Value backward(const Napi::CallbackInfo& info);
  Napi::Value make_cache(const Napi::CallbackInfo& info);
  Napi::Value forward_cached(const Napi::CallbackInfo& info);
  Napi::Value release(const Napi::CallbackInfo& info);
  Napi::Value dispose(const Napi::CallbackInfo& info);

  std::shared_ptr<WorkQueue> queue_;
  std::shared_ptr<Decoder> decoder_;
};

// A native object behind an External, with its kind, so that one is never taken for another. release() lets
// go of it at once; work in flight keeps what it needs.
struct HeldObject {
  const char* kind;
  std::shared_ptr<void> object;
};

inline Napi::Value make_external(Napi::Env env, const char* kind, std::shared_ptr<void> object) {
  auto* held = new HeldObject{kind, std::move(object)};
  return Napi::External<HeldObject>::New(env, held, [](Napi::Env, HeldObject* h) { delete h; });
}

template <class T>
std::shared_ptr<T> from_external(const Napi::Value& value, const char* kind) {
  HeldObject* held = value.IsExternal() ? value.As<Napi::External<HeldObject>>().Data() : nullptr;
  if (!held || held->kind != kind)
    throw Error("ERR_SDPO_ARGUMENT", str(kind, ": expected what the model returned"));
  if (!held->object) throw Error("ERR_SDPO_DISPOSED", str(kind, ": it was released"));
  return std::static_pointer_cast<T>(held->object);
}

extern const char* const kTape;
extern const char* const kCache;

}  // namespace sdpo
