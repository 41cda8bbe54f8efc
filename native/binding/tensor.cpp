#include <cstring>

#include "binding/env.h"

namespace sdpo {

// So that no other wrapped object is ever taken for a tensor.
static constexpr napi_type_tag kTensorTag = {0x7364706f2d74656e, 0x736f722d68616e64};

void TensorHandle::define(Napi::Env env, Napi::Object) {
  Napi::Function constructor = DefineClass(
      env, "TensorHandle",
      {InstanceMethod<&TensorHandle::shape>("shape"), InstanceMethod<&TensorHandle::dtype>("dtype"),
       InstanceMethod<&TensorHandle::read>("read"), InstanceMethod<&TensorHandle::rows>("rows"),
       InstanceMethod<&TensorHandle::reshape>("reshape"), InstanceMethod<&TensorHandle::dispose>("dispose")});
  tensor_constructor(env) = Napi::Persistent(constructor);
}

Napi::Value TensorHandle::wrap(Napi::Env env, const Tensor& tensor) {
  if (!tensor) return env.Null();
  return tensor_constructor(env).New({Napi::External<Tensor>::New(env, const_cast<Tensor*>(&tensor))});
}

TensorHandle::TensorHandle(const Napi::CallbackInfo& info) : Napi::ObjectWrap<TensorHandle>(info) {
  if (!info[0].IsExternal()) throw Napi::TypeError::New(info.Env(), "a tensor handle is not made by hand");
  info.This().As<Napi::Object>().TypeTag(&kTensorTag);
  tensor_ = *info[0].As<Napi::External<Tensor>>().Data();
  Napi::MemoryManagement::AdjustExternalMemory(info.Env(), int64_t(tensor_.bytes()));
}

TensorHandle::~TensorHandle() { let_go(Env()); }

void TensorHandle::let_go(Napi::Env env) {
  if (!tensor_) return;
  Napi::MemoryManagement::AdjustExternalMemory(env, -int64_t(tensor_.bytes()));
  tensor_ = Tensor();
}

Tensor TensorHandle::from(const Napi::Value& value) {
  const bool ours = value.IsObject() && value.As<Napi::Object>().CheckTypeTag(&kTensorTag);
  if (!ours) throw Error("ERR_SDPO_ARGUMENT", "expected a tensor");
  TensorHandle* handle = Unwrap(value.As<Napi::Object>());
  if (!handle || !handle->tensor_) throw Error("ERR_SDPO_DISPOSED", "the tensor has been disposed of");
  return handle->tensor_;
}

Tensor TensorHandle::from_optional(const Napi::Value& value) {
  return value.IsUndefined() || value.IsNull() ? Tensor() : from(value);
}

Napi::Value TensorHandle::shape(const Napi::CallbackInfo& info) {
  Napi::Array shape = Napi::Array::New(info.Env(), tensor_.shape().size());
  for (size_t i = 0; i < tensor_.shape().size(); i++) shape[uint32_t(i)] = double(tensor_.shape()[i]);
  return shape;
}

Napi::Value TensorHandle::dtype(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), dtype_name(tensor_.dtype()));
}

Napi::Value TensorHandle::read(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const Tensor tensor = from(info.This());
    auto bytes = std::make_shared<std::unique_ptr<uint8_t[]>>();
    return submit(
        info.Env(), DeviceHandle::from(info[0]).queue, nullptr,
        [tensor, bytes] {
          bytes->reset(new uint8_t[tensor.bytes()]);
          tensor.to_host(bytes->get());
        },
        [tensor, bytes](Napi::Env env) -> Napi::Value {
          Napi::ArrayBuffer buffer = Napi::ArrayBuffer::New(env, tensor.bytes());
          if (tensor.bytes()) std::memcpy(buffer.Data(), bytes->get(), tensor.bytes());
          return buffer;
        });
  });
}

Napi::Value TensorHandle::rows(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    if (!info[0].IsNumber() || !info[1].IsNumber())
      throw Error("ERR_SDPO_ARGUMENT", "rows: expected two numbers");
    return wrap(info.Env(),
                from(info.This()).rows(info[0].ToNumber().Int64Value(), info[1].ToNumber().Int64Value()));
  });
}

Napi::Value TensorHandle::reshape(const Napi::CallbackInfo& info) {
  return guarded(info.Env(),
                 [&] { return wrap(info.Env(), from(info.This()).reshape(shape_from(info[0]))); });
}

Napi::Value TensorHandle::dispose(const Napi::CallbackInfo& info) {
  let_go(info.Env());
  return info.Env().Undefined();
}

}  // namespace sdpo
