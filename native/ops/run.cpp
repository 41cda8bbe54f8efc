#include "ops/run.h"

namespace sdpo {
namespace {

thread_local const std::atomic<bool>*cancel_flag = nullptr, *other_flag = nullptr;

bool is_set(const std::atomic<bool>* flag) { return flag && flag->load(std::memory_order_relaxed); }

const sdpo_kernel* kernel_for(const OpSchema& op, Device& device) {
  const sdpo_kernel* kernel = device.backend().find_kernel(op.name().c_str());
  if (!kernel) throw Error("ERR_SDPO_OP", str("[", op.name(), "] no kernel on device '", device.name(), "'"));
  return kernel;
}

void check_devices(const OpSchema& op, Device& device, const std::vector<Tensor>& tensors) {
  for (const Tensor& t : tensors)
    if (t && t.device().get() != &device)
      throw Error("ERR_SDPO_OP",
                  str("[", op.name(), "] a tensor lives on another device (", t.device()->name(), ")"));
}

Tensor make_output(const OpSchema& op, Device& device, const TensorSpec& spec, const Dims& dims,
                   const std::vector<Tensor>& inputs, const std::vector<double>& attributes) {
  auto holds = [&](const std::string& name) {
    const int flag = op.attribute_index(name);
    return flag >= 0 ? attributes[size_t(flag)] != 0 : bool(inputs[size_t(op.input_index(name))]);
  };
  if (!spec.only.empty() && !holds(spec.only)) return {};
  if (!spec.alias.empty() && (spec.when.empty() || holds(spec.when))) {
    const Tensor& input = inputs[size_t(op.input_index(spec.alias))];
    if (input) return input;
  }
  DType dtype = spec.dtypes.empty() ? DType::F32 : spec.dtypes[0];
  if (!spec.like.empty()) dtype = inputs[size_t(op.input_index(spec.like))].dtype();
  return Tensor::empty(device.shared_from_this(), dtype, op.output_shape(spec, dims, inputs));
}

void check_output(const OpSchema& op, const TensorSpec& spec, const Tensor& given, const Shape& shape) {
  if (given.shape() != shape)
    throw Error("ERR_SDPO_OP", str("[", op.name(), "] ", spec.name, ": expected ", shape_text(shape),
                                   ", got ", shape_text(given.shape())));
}

}  // namespace

CancelScope::CancelScope(const std::atomic<bool>* flag, const std::atomic<bool>* other)
    : previous_(cancel_flag), previous_other_(other_flag) {
  cancel_flag = flag;
  other_flag = other;
}

CancelScope::~CancelScope() {
  cancel_flag = previous_;
  other_flag = previous_other_;
}

void throw_if_cancelled() {
  if (is_set(cancel_flag) || is_set(other_flag)) throw Error("ERR_SDPO_ABORTED", "aborted");
}

std::vector<Tensor> run_op_into(const OpSchema& op, Device& device, const std::vector<Tensor>& inputs,
                                std::vector<Tensor> outputs, const std::vector<double>& attributes) {
  throw_if_cancelled();
  Dims dims = op.bind(inputs);
  op.check_attributes(attributes);
  op.derive_dims(dims, attributes);
  op.check_call(dims, attributes);
  outputs.resize(op.outputs().size());
  for (size_t i = 0; i < outputs.size(); i++) {
    const TensorSpec& spec = op.outputs()[i];
    if (outputs[i])
      check_output(op, spec, outputs[i], op.output_shape(spec, dims, inputs));
    else
      outputs[i] = make_output(op, device, spec, dims, inputs, attributes);
  }
  check_devices(op, device, inputs);
  check_devices(op, device, outputs);
  std::vector<sdpo_tensor> raw_in, raw_out;
  for (const Tensor& t : inputs) raw_in.push_back(t.raw());
  for (const Tensor& t : outputs) raw_out.push_back(t.raw());
  const uint64_t scratch_bytes = op.scratch_bytes(device, dims, attributes, inputs);
  Tensor scratch;
  if (scratch_bytes) scratch = Tensor::empty(device.shared_from_this(), DType::U8, {int64_t(scratch_bytes)});
  char message[kMessageBytes] = "";
  const sdpo_op_call call{
      raw_in.data(), raw_out.data(), attributes.data(), scratch ? scratch.data() : nullptr,
      scratch_bytes, nullptr,        message,           sizeof message};
  const int status = device.backend().run(device.handle(), kernel_for(op, device), &call);
  if (status != SDPO_OK) {
    throw_if_cancelled();  // between a kernel's chunks: no status of the backend interface says so
    throw Error(status == SDPO_OUT_OF_MEMORY ? "ERR_SDPO_MEMORY" : "ERR_SDPO_OP",
                str("[", op.name(), "] ", message));
  }
  return outputs;
}

std::vector<Tensor> run_op(const OpSchema& op, Device& device, const std::vector<Tensor>& inputs,
                           const std::vector<double>& attributes) {
  return run_op_into(op, device, inputs, {}, attributes);
}

}  // namespace sdpo
