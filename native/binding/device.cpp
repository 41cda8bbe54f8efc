#include <cmath>

#include "binding/env.h"
#include "ops/run.h"

namespace sdpo {

Shape shape_from(const Napi::Value& value) {
  if (!value.IsArray()) throw Error("ERR_SDPO_ARGUMENT", "shape: expected an array of sizes");
  const Napi::Array array = value.As<Napi::Array>();
  Shape shape;
  for (uint32_t i = 0; i < array.Length(); i++) {
    const Napi::Value item = array.Get(i);
    const double size = item.IsNumber() ? item.As<Napi::Number>().DoubleValue() : std::nan("");
    if (!(size >= 0 && size <= double(int64_t(1) << 48) && size == std::floor(size)))
      throw Error("ERR_SDPO_ARGUMENT",
                  str("shape: size ", size, " at ", i, ": expected a non-negative integer"));
    shape.push_back(int64_t(size));
  }
  return shape;
}

DType dtype_from(const Napi::Value& value) {
  const std::string name = value.IsString() ? std::string(value.ToString()) : "that is no text";
  for (DType t : {DType::F32, DType::BF16, DType::I32, DType::U8})
    if (name == dtype_name(t)) return t;
  throw Error("ERR_SDPO_ARGUMENT", str("dtype '", name, "': expected f32, bf16, i32 or u8"));
}

namespace {

constexpr napi_type_tag kDeviceTag = {0x7364706f2d646576, 0x6963652d68616e64};

// Copies a typed array's elements at once, so that detaching it later is harmless. The element type of the
// array must be that of dtype, or Float32Array for bf16, which is rounded here.
Tensor copy_in(const std::shared_ptr<Device>& device, const Napi::TypedArray& array, DType dtype,
               const Shape& shape) {
  const int64_t count = element_count(shape);
  if (int64_t(array.ElementLength()) != count)
    throw Error("ERR_SDPO_ARGUMENT", str("data: expected ", count, " elements for shape ", shape_text(shape),
                                         ", got ", array.ElementLength()));
  // Asked for without its ArrayBuffer, which a SharedArrayBuffer is not.
  void* bytes = nullptr;
  if (napi_get_typedarray_info(array.Env(), array, nullptr, nullptr, &bytes, nullptr, nullptr) != napi_ok)
    throw Error("ERR_SDPO_ARGUMENT", "data: this typed array cannot be read");
  const napi_typedarray_type type = array.TypedArrayType();
  const bool same = (dtype == DType::F32 && type == napi_float32_array) ||
                    (dtype == DType::I32 && type == napi_int32_array) ||
                    (dtype == DType::U8 && (type == napi_uint8_array || type == napi_uint8_clamped_array)) ||
                    (dtype == DType::BF16 && type == napi_uint16_array);
  if (same) return Tensor::from_host(device, dtype, shape, bytes);
  if (dtype != DType::BF16 || type != napi_float32_array)
    throw Error("ERR_SDPO_ARGUMENT", str("data: this kind of typed array does not hold ", dtype_name(dtype)));
  const float* values = static_cast<const float*>(bytes);
  std::vector<uint16_t> rounded(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; i++) rounded[size_t(i)] = f32_to_bf16(values[i]);
  return Tensor::from_host(device, dtype, shape, rounded.data());
}

}  // namespace

void DeviceHandle::define(Napi::Env env, Napi::Object exports) {
  exports.Set("DeviceHandle", DefineClass(env, "DeviceHandle",
                                          {InstanceMethod<&DeviceHandle::name>("name"),
                                           InstanceMethod<&DeviceHandle::description>("description"),
                                           InstanceMethod<&DeviceHandle::supports>("supports"),
                                           InstanceMethod<&DeviceHandle::memory>("memory"),
                                           InstanceMethod<&DeviceHandle::reset_peak>("resetPeak"),
                                           InstanceMethod<&DeviceHandle::trim>("trim"),
                                           InstanceMethod<&DeviceHandle::from_host>("fromHost"),
                                           InstanceMethod<&DeviceHandle::zeros>("zeros"),
                                           InstanceMethod<&DeviceHandle::run>("run"),
                                           InstanceMethod<&DeviceHandle::dispose>("dispose")}));
}

DeviceHandle::DeviceHandle(const Napi::CallbackInfo& info) : Napi::ObjectWrap<DeviceHandle>(info) {
  info.This().As<Napi::Object>().TypeTag(&kDeviceTag);
  guarded(info.Env(), [&]() -> Napi::Value {
    device = Device::open(info[0].ToString());
    queue = make_queue();
    return info.Env().Undefined();
  });
}

DeviceHandle& DeviceHandle::from(const Napi::Value& value) {
  const bool ours = value.IsObject() && value.As<Napi::Object>().CheckTypeTag(&kDeviceTag);
  if (!ours) throw Error("ERR_SDPO_ARGUMENT", "expected a device");
  DeviceHandle* handle = Unwrap(value.As<Napi::Object>());
  if (!handle || !handle->device) throw Error("ERR_SDPO_DISPOSED", "the device has been disposed of");
  return *handle;
}

Napi::Value DeviceHandle::name(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return Napi::String::New(info.Env(), from(info.This()).device->name()); });
}

Napi::Value DeviceHandle::description(const Napi::CallbackInfo& info) {
  return guarded(info.Env(),
                 [&] { return Napi::String::New(info.Env(), from(info.This()).device->description()); });
}

Napi::Value DeviceHandle::supports(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    return Napi::Boolean::New(info.Env(), from(info.This()).device->supports(info[0].ToString()));
  });
}

Napi::Value DeviceHandle::memory(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const MemoryInfo memory = from(info.This()).device->memory();
    Napi::Object out = Napi::Object::New(info.Env());
    out.Set("current", double(memory.current));
    out.Set("peak", double(memory.peak));
    out.Set("reserved", double(memory.reserved));
    return out;
  });
}

Napi::Value DeviceHandle::reset_peak(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    from(info.This()).device->reset_peak();
    return info.Env().Undefined();
  });
}

Napi::Value DeviceHandle::trim(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    from(info.This()).device->trim();
    return info.Env().Undefined();
  });
}

Napi::Value DeviceHandle::from_host(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    if (!info[0].IsTypedArray()) throw Error("ERR_SDPO_ARGUMENT", "data: expected a typed array");
    return TensorHandle::wrap(info.Env(), copy_in(from(info.This()).device, info[0].As<Napi::TypedArray>(),
                                                  dtype_from(info[1]), shape_from(info[2])));
  });
}

Napi::Value DeviceHandle::zeros(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    return TensorHandle::wrap(
        info.Env(), Tensor::zeros(from(info.This()).device, dtype_from(info[0]), shape_from(info[1])));
  });
}

// run(op, inputs, Float64Array attributes, cancel?) -> promise of the outputs.
Napi::Value DeviceHandle::run(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const OpSchema& op = find_op(info[0].ToString());
    std::vector<Tensor> inputs;
    const Napi::Array given = info[1].As<Napi::Array>();
    for (uint32_t i = 0; i < given.Length(); i++) inputs.push_back(TensorHandle::from_optional(given.Get(i)));
    const Napi::Float64Array values = info[2].As<Napi::Float64Array>();
    std::vector<double> attributes(values.Data(), values.Data() + values.ElementLength());
    DeviceHandle& self = from(info.This());
    auto outputs = std::make_shared<std::vector<Tensor>>();
    return submit(
        info.Env(), self.queue, cancel_flag(info[3]),
        [&op, device = self.device, inputs, attributes, outputs] {
          *outputs = run_op(op, *device, inputs, attributes);
        },
        [outputs](Napi::Env env) -> Napi::Value {
          Napi::Array array = Napi::Array::New(env, outputs->size());
          for (size_t i = 0; i < outputs->size(); i++)
            array[uint32_t(i)] = TensorHandle::wrap(env, (*outputs)[i]);
          return array;
        });
  });
}

Napi::Value DeviceHandle::dispose(const Napi::CallbackInfo& info) {
  device.reset();
  queue.reset();
  return info.Env().Undefined();
}

}  // namespace sdpo
