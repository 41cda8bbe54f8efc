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
  Napi::Value dispose(const Napi::CallbackInfo& info);

  std::shared_ptr<WorkQueue> queue_;
  std::shared_ptr<Decoder> decoder_;
};

template <class T>
Napi::Value make_external(Napi::Env env, std::shared_ptr<T> object) {
  auto* held = new std::shared_ptr<T>(std::move(object));
  return Napi::External<std::shared_ptr<T>>::New(env, held,
                                                 [](Napi::Env, std::shared_ptr<T>* p) { delete p; });
}

template <class T>
std::shared_ptr<T> from_external(const Napi::Value& value, const char* what) {
  if (!value.IsExternal()) throw Error("ERR_SDPO_ARGUMENT", str(what, ": expected what the model returned"));
  return *value.As<Napi::External<std::shared_ptr<T>>>().Data();
}

}  // namespace sdpo
