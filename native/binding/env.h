// What every part of the binding shares: the environment's state, jobs on a device's thread, handles.
//
// A job runs on its device's work thread, never on libuv's pool. An environment that ends (process exit, a
// worker's terminate()) drains first: running jobs finish, waiting ones are dropped, and nothing calls into
// the environment afterwards.
#pragma once
#include <napi.h>

#include <atomic>
#include <functional>
#include <memory>

#include "backends/device.h"
#include "backends/tensor.h"
#include "core/error.h"

namespace sdpo {

class WorkQueue;
using CancelFlag = std::shared_ptr<std::atomic<bool>>;

// Runs `work` on the queue's thread, then `finish` on the JavaScript thread; the promise resolves with what
// it returns. An Error from either rejects with an SdpoError's fields.
Napi::Value submit(Napi::Env env, const std::shared_ptr<WorkQueue>& queue, CancelFlag cancel,
                   std::function<void()> work, std::function<Napi::Value(Napi::Env)> finish);

// Calls body and turns a C++ exception into a JavaScript one with `code`.
Napi::Value guarded(Napi::Env env, const std::function<Napi::Value()>& body);

// The flag behind an argument made by newCancelFlag(), or null where it is undefined.
CancelFlag cancel_flag(const Napi::Value& value);

void init_env(Napi::Env env);
Napi::FunctionReference& tensor_constructor(Napi::Env env);
void define_cancel(Napi::Env env, Napi::Object exports);

// A device as JavaScript holds it; dispose() lets go of it.
class DeviceHandle : public Napi::ObjectWrap<DeviceHandle> {
 public:
  static void define(Napi::Env env, Napi::Object exports);
  explicit DeviceHandle(const Napi::CallbackInfo& info);
  static DeviceHandle& from(const Napi::Value& value);  // throws Error on anything but a live device

  std::shared_ptr<Device> device;
  std::shared_ptr<WorkQueue> queue;

 private:
  Napi::Value name(const Napi::CallbackInfo& info);
  Napi::Value description(const Napi::CallbackInfo& info);
  Napi::Value supports(const Napi::CallbackInfo& info);
  Napi::Value memory(const Napi::CallbackInfo& info);
  Napi::Value reset_peak(const Napi::CallbackInfo& info);
  Napi::Value trim(const Napi::CallbackInfo& info);
  Napi::Value from_host(const Napi::CallbackInfo& info);
  Napi::Value zeros(const Napi::CallbackInfo& info);
  Napi::Value run(const Napi::CallbackInfo& info);
  Napi::Value dispose(const Napi::CallbackInfo& info);
};

class TensorHandle : public Napi::ObjectWrap<TensorHandle> {
 public:
  static void define(Napi::Env env, Napi::Object exports);
  static Napi::Value wrap(Napi::Env env, const Tensor& tensor);
  static Tensor from(const Napi::Value& value);           // throws Error on anything but a live tensor
  static Tensor from_optional(const Napi::Value& value);  // undefined and null give an empty Tensor
  explicit TensorHandle(const Napi::CallbackInfo& info);
  ~TensorHandle() override;

 private:
  Napi::Value shape(const Napi::CallbackInfo& info);
  Napi::Value dtype(const Napi::CallbackInfo& info);
  Napi::Value read(const Napi::CallbackInfo& info);
  Napi::Value rows(const Napi::CallbackInfo& info);
  Napi::Value reshape(const Napi::CallbackInfo& info);
  Napi::Value dispose(const Napi::CallbackInfo& info);
  void let_go(Napi::Env env);

  Tensor tensor_;
};

std::shared_ptr<WorkQueue> make_queue();
Shape shape_from(const Napi::Value& value);
DType dtype_from(const Napi::Value& value);

}  // namespace sdpo
