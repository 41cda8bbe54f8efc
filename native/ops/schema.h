// The op registry. An op is declared once, with the names, dtypes and shapes of its tensors, its attributes
// and its CPU kernel; the schema is checked here for every device, and TypeScript types are made from it.
//
//   SDPO_OP(scale_fwd)
//       .input("x", "f32|bf16", "T,D")
//       .output("y", "f32", "T,D")
//       .number("factor", 1.0)
//       .cpu<scale_fwd>();
//
// Shape text: symbols bind to the first size seen and must agree afterwards; numbers are literal; "*name"
// takes any shape, and the same one wherever that symbol stands again. An optional input ends in "?".
#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "backends/abi.h"
#include "backends/tensor.h"

namespace sdpo {

struct TensorSpec {
  std::string name;
  std::vector<DType> dtypes;      // empty for an output that takes its dtype from input `like`
  std::vector<std::string> dims;  // {"*N"} for any shape
  bool optional = false;
  std::string alias;  // output: takes the memory of this input ...
  std::string when;   // ... if this boolean attribute holds (always, where empty and alias is set)
  std::string like;   // output: dtype of this input
  std::string only;   // output: made only if this boolean attribute holds or this optional input is given
};

struct AttributeSpec {
  enum Kind { Number, Integer, Boolean, Choice };
  std::string name;
  Kind kind = Number;
  double fallback = 0;
  double least = 0, most = 0;  // inclusive
  bool nullable = false;
  std::vector<std::string> choices;
};

// Sizes by symbol, as bound by the inputs of a call.
using Dims = std::map<std::string, int64_t>;

// Bytes of scratch for a call on a device other than the CPU; the inputs are there for their dtypes.
using DeviceScratch =
    std::function<uint64_t(const Dims&, const double* attributes, const std::vector<Tensor>&)>;

// What a CPU kernel sees of a call.
class Call {
 public:
  explicit Call(const sdpo_op_call& raw) : raw_(raw) {}
  const sdpo_tensor& in(int i) const { return raw_.inputs[i]; }
  const sdpo_tensor& out(int i) const { return raw_.outputs[i]; }
  bool has_in(int i) const { return raw_.inputs[i].data != nullptr; }
  bool has_out(int i) const { return raw_.outputs[i].data != nullptr; }
  template <class T>
  T* in_as(int i) const {
    return static_cast<T*>(raw_.inputs[i].data);
  }
  template <class T>
  T* out_as(int i) const {
    return static_cast<T*>(raw_.outputs[i].data);
  }
  double number(int i) const { return raw_.attributes[i]; }
  bool flag(int i) const { return raw_.attributes[i] != 0; }
  bool is_null(int i) const { return raw_.attributes[i] != raw_.attributes[i]; }
  const double* attributes() const { return raw_.attributes; }
  int64_t integer(int i) const { return int64_t(raw_.attributes[i]); }
  void* scratch() const { return raw_.scratch; }
  uint64_t scratch_bytes() const { return raw_.scratch_bytes; }

 private:
  const sdpo_op_call& raw_;
};

class OpSchema {
 public:
  explicit OpSchema(std::string name) : name_(std::move(name)) {}

  OpSchema& input(const char* name, const char* dtypes, const char* shape);
  OpSchema& output(const char* name, const char* dtypes, const char* shape);
  OpSchema& like(const char* input);                            // the last output's dtype
  OpSchema& aliases(const char* input, const char* when = "");  // the last output's memory
  OpSchema& only(const char* when);                             // the last output's condition
  OpSchema& number(const char* name, double fallback, double least = -1e300, double most = 1e300);
  OpSchema& nullable(const char* name, double least = -1e300, double most = 1e300);  // null by default
  OpSchema& integer(const char* name, int64_t fallback, int64_t least, int64_t most);
  OpSchema& nullable_integer(const char* name, int64_t least, int64_t most);
  OpSchema& boolean(const char* name, bool fallback);
  OpSchema& choice(const char* name, std::vector<std::string> values);  // the first is the default
  OpSchema& derive(std::function<void(Dims&, const double*)> sizes);    // sizes that follow from others
  OpSchema& scratch(std::function<uint64_t(const Dims&, const double*)> bytes);  // on the CPU
  OpSchema& device_scratch(DeviceScratch bytes);                                 // on every other device
  OpSchema& check(std::function<void(const Dims&, const double*)> extra);        // throws Error
  OpSchema& with(void (*shared)(OpSchema&)) {  // what several ops declare alike
    shared(*this);
    return *this;
  }
  template <void (*kernel)(const Call&)>
  OpSchema& cpu() {
    return add_cpu([](const sdpo_op_call& raw) { kernel(Call(raw)); });
  }

  const std::string& name() const { return name_; }
  const std::vector<TensorSpec>& inputs() const { return inputs_; }
  const std::vector<TensorSpec>& outputs() const { return outputs_; }
  const std::vector<AttributeSpec>& attributes() const { return attributes_; }

  // Both throw Error with "[op] name: expected ..., got ...".
  Dims bind(const std::vector<Tensor>& inputs) const;
  void check_attributes(const std::vector<double>& values) const;
  void derive_dims(Dims& dims, const std::vector<double>& attributes) const;
  void check_call(const Dims& dims, const std::vector<double>& attributes) const;
  uint64_t scratch_bytes(const Device& device, const Dims& dims, const std::vector<double>& attributes,
                         const std::vector<Tensor>& inputs) const;
  Shape output_shape(const TensorSpec& spec, const Dims& dims, const std::vector<Tensor>& inputs) const;
  int input_index(const std::string& name) const;      // -1 where there is none
  int attribute_index(const std::string& name) const;  // -1 where there is none

 private:
  OpSchema& add_cpu(void (*function)(const sdpo_op_call&));
  AttributeSpec& add(const char* name, AttributeSpec::Kind kind);

  std::string name_;
  std::vector<TensorSpec> inputs_, outputs_;
  std::vector<AttributeSpec> attributes_;
  std::function<void(Dims&, const double*)> derive_;
  std::function<uint64_t(const Dims&, const double*)> scratch_;
  DeviceScratch device_scratch_;
  std::function<void(const Dims&, const double*)> check_;
};

OpSchema& register_op(const char* name);
const std::vector<OpSchema*>& all_ops();           // sorted by name
const OpSchema& find_op(const std::string& name);  // throws Error with the nearest names

#define SDPO_OP(name) static OpSchema& name##_schema [[maybe_unused]] = register_op(#name)

}  // namespace sdpo
