// The addon's exports. This folder is the only one that knows N-API, and the one place that catches.
#include <napi.h>

#include "backends/cpu/gemm.h"
#include "binding/env.h"
#include "binding/handles.h"
#include "core/cpu.h"
#include "core/parallel.h"
#include "ops/schema.h"

namespace sdpo {
namespace {

Napi::Array strings(Napi::Env env, const std::vector<std::string>& values) {
  Napi::Array array = Napi::Array::New(env, values.size());
  for (size_t i = 0; i < values.size(); i++) array[uint32_t(i)] = values[i];
  return array;
}

Napi::Object tensor_spec(Napi::Env env, const TensorSpec& spec) {
  Napi::Object o = Napi::Object::New(env);
  o.Set("name", spec.name);
  std::vector<std::string> dtypes;
  for (DType t : spec.dtypes) dtypes.push_back(dtype_name(t));
  o.Set("dtypes", strings(env, dtypes));
  o.Set("shape", strings(env, spec.dims));
  o.Set("optional", spec.optional || !spec.only.empty());
  return o;
}

Napi::Object attribute_spec(Napi::Env env, const AttributeSpec& spec) {
  static const char* kinds[] = {"number", "integer", "boolean", "choice"};
  Napi::Object o = Napi::Object::New(env);
  o.Set("name", spec.name);
  o.Set("kind", kinds[spec.kind]);
  o.Set("fallback", spec.fallback);
  o.Set("least", spec.least);
  o.Set("most", spec.most);
  o.Set("nullable", spec.nullable);
  o.Set("choices", strings(env, spec.choices));
  return o;
}

Napi::Value schemas(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Napi::Array list = Napi::Array::New(env);
  for (const OpSchema* op : all_ops()) {
    Napi::Object o = Napi::Object::New(env);
    Napi::Array inputs = Napi::Array::New(env), outputs = Napi::Array::New(env),
                attributes = Napi::Array::New(env);
    for (const TensorSpec& spec : op->inputs()) inputs[inputs.Length()] = tensor_spec(env, spec);
    for (const TensorSpec& spec : op->outputs()) outputs[outputs.Length()] = tensor_spec(env, spec);
    for (const AttributeSpec& spec : op->attributes())
      attributes[attributes.Length()] = attribute_spec(env, spec);
    o.Set("name", op->name());
    o.Set("inputs", inputs);
    o.Set("outputs", outputs);
    o.Set("attributes", attributes);
    list[list.Length()] = o;
  }
  return list;
}

Napi::Value build_info(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    Napi::Env env = info.Env();
    Napi::Object o = Napi::Object::New(env);
    std::vector<std::string> isas;
    for (Isa isa : available_isas()) isas.push_back(isa_name(isa));
    o.Set("version", SDPO_VERSION);
    o.Set("instructionSet", isa_name(current_isa()));
    o.Set("instructionSets", strings(env, isas));
    o.Set("threads", thread_count());
    o.Set("gemm", gemm_name());
    return o;
  });
}

Napi::Value backends(const Napi::CallbackInfo& info) {
  Napi::Array list = Napi::Array::New(info.Env());
  for (const BackendReport& report : backend_reports()) {
    Napi::Object o = Napi::Object::New(info.Env());
    o.Set("name", report.name);
    o.Set("available", report.available);
    o.Set("detail", report.detail);
    list[list.Length()] = o;
  }
  return list;
}

Napi::Value set_instruction_set(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    set_isa(info[0].ToString());
    return info.Env().Undefined();
  });
}

Napi::Value set_threads(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    set_thread_count(info[0].ToNumber().Int32Value());
    return info.Env().Undefined();
  });
}

Napi::Value set_gemm_library(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    set_gemm(info[0].ToString());
    return info.Env().Undefined();
  });
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  init_env(env);
  TensorHandle::define(env, exports);
  DeviceHandle::define(env, exports);
  ModelHandle::define(env, exports);
  define_cancel(env, exports);
  exports.Set("schemas", Napi::Function::New(env, schemas));
  exports.Set("buildInfo", Napi::Function::New(env, build_info));
  exports.Set("backends", Napi::Function::New(env, backends));
  exports.Set("setInstructionSet", Napi::Function::New(env, set_instruction_set));
  exports.Set("setThreads", Napi::Function::New(env, set_threads));
  exports.Set("setGemm", Napi::Function::New(env, set_gemm_library));
  return exports;
}

}  // namespace
}  // namespace sdpo

static Napi::Object Init(Napi::Env env, Napi::Object exports) { return sdpo::init(env, exports); }
NODE_API_MODULE(NODE_GYP_MODULE_NAME, Init)
