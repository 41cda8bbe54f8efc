#include "ops/schema.h"

#include <algorithm>
#include <cmath>

#include "backends/cpu/kernels.h"
#include "backends/device.h"

namespace sdpo {
namespace {

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts;
  std::string part;
  for (char c : text) {
    if (c == at) {
      parts.push_back(part);
      part.clear();
    } else if (c != ' ') {
      part += c;
    }
  }
  if (!part.empty()) parts.push_back(part);
  return parts;
}

std::vector<DType> parse_dtypes(const std::string& text) {
  std::vector<DType> list;
  for (const std::string& name : split(text, '|'))
    for (DType t : {DType::F32, DType::BF16, DType::I32, DType::U8})
      if (name == dtype_name(t)) list.push_back(t);
  return list;
}

std::string dtypes_text(const std::vector<DType>& dtypes) {
  std::string text;
  for (DType t : dtypes) text += str(text.empty() ? "" : "|", dtype_name(t));
  return text;
}

bool is_number(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), ::isdigit);
}

std::string dims_text(const std::vector<std::string>& dims) {
  std::string text;
  for (const std::string& d : dims) text += str(text.empty() ? "" : ",", d);
  return "[" + text + "]";
}

// "[T,V] = [8,97]", unknown sizes as "?".
std::string expected_shape(const std::vector<std::string>& dims, const Dims& known) {
  std::string values;
  for (const std::string& d : dims) {
    auto found = known.find(d);
    values += str(values.empty() ? "" : ",", is_number(d)           ? d
                                             : found == known.end() ? "?"
                                                                    : std::to_string(found->second));
  }
  return str(dims_text(dims), " = [", values, "]");
}

std::vector<OpSchema*>& registry() {
  static std::vector<OpSchema*>* ops = new std::vector<OpSchema*>;
  return *ops;
}

}  // namespace

OpSchema& register_op(const char* name) {
  auto* op = new OpSchema(name);  // lives as long as the process
  auto& ops = registry();
  ops.insert(
      std::lower_bound(ops.begin(), ops.end(), op, [](auto* a, auto* b) { return a->name() < b->name(); }),
      op);
  return *op;
}

const std::vector<OpSchema*>& all_ops() { return registry(); }

const OpSchema& find_op(const std::string& name) {
  for (OpSchema* op : registry())
    if (op->name() == name) return *op;
  std::string all;
  for (OpSchema* op : registry()) all += str(all.empty() ? "" : ", ", op->name());
  throw Error("ERR_SDPO_OP", str("no op is named '", name, "'; there are: ", all));
}

OpSchema& OpSchema::input(const char* name, const char* dtypes, const char* shape) {
  TensorSpec spec;
  spec.name = name;
  spec.optional = spec.name.back() == '?';
  if (spec.optional) spec.name.pop_back();
  spec.dtypes = parse_dtypes(dtypes);
  spec.dims = split(shape, ',');
  inputs_.push_back(spec);
  return *this;
}

OpSchema& OpSchema::output(const char* name, const char* dtypes, const char* shape) {
  TensorSpec spec;
  spec.name = name;
  spec.dtypes = parse_dtypes(dtypes);
  spec.dims = split(shape, ',');
  outputs_.push_back(spec);
  return *this;
}

OpSchema& OpSchema::like(const char* input) {
  outputs_.back().like = input;
  return *this;
}

OpSchema& OpSchema::aliases(const char* input, const char* when) {
  outputs_.back().alias = input;
  outputs_.back().when = when;
  return *this;
}

OpSchema& OpSchema::only(const char* when) {
  outputs_.back().only = when;
  return *this;
}

AttributeSpec& OpSchema::add(const char* name, AttributeSpec::Kind kind) {
  AttributeSpec spec;
  spec.name = name;
  spec.kind = kind;
  attributes_.push_back(spec);
  return attributes_.back();
}

OpSchema& OpSchema::number(const char* name, double fallback, double least, double most) {
  AttributeSpec& a = add(name, AttributeSpec::Number);
  a.fallback = fallback;
  a.least = least;
  a.most = most;
  return *this;
}

OpSchema& OpSchema::nullable(const char* name, double least, double most) {
  number(name, std::nan(""), least, most);
  attributes_.back().nullable = true;
  return *this;
}

OpSchema& OpSchema::integer(const char* name, int64_t fallback, int64_t least, int64_t most) {
  AttributeSpec& a = add(name, AttributeSpec::Integer);
  a.fallback = double(fallback);
  a.least = double(least);
  a.most = double(most);
  return *this;
}

OpSchema& OpSchema::nullable_integer(const char* name, int64_t least, int64_t most) {
  integer(name, 0, least, most);
  attributes_.back().fallback = std::nan("");
  attributes_.back().nullable = true;
  return *this;
}

OpSchema& OpSchema::boolean(const char* name, bool fallback) {
  AttributeSpec& a = add(name, AttributeSpec::Boolean);
  a.fallback = fallback;
  a.most = 1;
  return *this;
}

OpSchema& OpSchema::choice(const char* name, std::vector<std::string> values) {
  AttributeSpec& a = add(name, AttributeSpec::Choice);
  a.most = double(values.size() - 1);
  a.choices = std::move(values);
  return *this;
}

OpSchema& OpSchema::derive(std::function<void(Dims&, const double*)> sizes) {
  derive_ = std::move(sizes);
  return *this;
}

OpSchema& OpSchema::scratch(std::function<uint64_t(const Dims&, const double*)> bytes) {
  scratch_ = std::move(bytes);
  return *this;
}

OpSchema& OpSchema::device_scratch(DeviceScratch bytes) {
  device_scratch_ = std::move(bytes);
  return *this;
}

OpSchema& OpSchema::check(std::function<void(const Dims&, const double*)> extra) {
  check_ = std::move(extra);
  return *this;
}

OpSchema& OpSchema::add_cpu(void (*function)(const sdpo_op_call&)) {
  add_cpu_kernel(name_.c_str(), function);
  return *this;
}

int OpSchema::input_index(const std::string& name) const {
  for (size_t i = 0; i < inputs_.size(); i++)
    if (inputs_[i].name == name) return int(i);
  return -1;
}

int OpSchema::attribute_index(const std::string& name) const {
  for (size_t i = 0; i < attributes_.size(); i++)
    if (attributes_[i].name == name) return int(i);
  return -1;
}

Dims OpSchema::bind(const std::vector<Tensor>& inputs) const {
  if (inputs.size() != inputs_.size())
    throw Error("ERR_SDPO_OP",
                str("[", name_, "] expected ", inputs_.size(), " inputs, got ", inputs.size()));
  Dims dims;
  for (size_t i = 0; i < inputs.size(); i++) {
    const TensorSpec& spec = inputs_[i];
    const Tensor& t = inputs[i];
    if (!t) {
      if (spec.optional) continue;
      throw Error("ERR_SDPO_OP", str("[", name_, "] ", spec.name, ": required, not given"));
    }
    const bool any = spec.dims.size() == 1 && spec.dims[0][0] == '*';
    bool good = std::find(spec.dtypes.begin(), spec.dtypes.end(), t.dtype()) != spec.dtypes.end();
    good = good && (any || t.shape().size() == spec.dims.size());
    if (good && any) {
      auto [at, fresh] = dims.emplace(spec.dims[0], t.elements());
      good = fresh || at->second == t.elements();
    } else {
      for (size_t d = 0; good && d < spec.dims.size(); d++) {
        if (is_number(spec.dims[d])) {
          good = t.size(int(d)) == std::stoll(spec.dims[d]);
        } else {
          auto [at, fresh] = dims.emplace(spec.dims[d], t.size(int(d)));
          good = fresh || at->second == t.size(int(d));
        }
      }
    }
    if (!good)
      throw Error("ERR_SDPO_OP", str("[", name_, "] ", spec.name, ": expected ", dtypes_text(spec.dtypes),
                                     " ", expected_shape(spec.dims, dims), ", got ", dtype_name(t.dtype()),
                                     " ", shape_text(t.shape())));
  }
  return dims;
}

void OpSchema::check_attributes(const std::vector<double>& values) const {
  if (values.size() != attributes_.size())
    throw Error("ERR_SDPO_OP",
                str("[", name_, "] expected ", attributes_.size(), " attributes, got ", values.size()));
  for (size_t i = 0; i < values.size(); i++) {
    const AttributeSpec& a = attributes_[i];
    const double v = values[i];
    if (std::isnan(v) && a.nullable) continue;
    const bool whole = a.kind == AttributeSpec::Number || v == std::floor(v);
    if (!whole || !(v >= a.least && v <= a.most))
      throw Error("ERR_SDPO_OP", str("[", name_, "] ", a.name, ": expected ",
                                     a.kind == AttributeSpec::Number ? "a number" : "an integer", " from ",
                                     a.least, " to ", a.most, a.nullable ? " or null" : "", ", got ", v));
  }
}

void OpSchema::derive_dims(Dims& dims, const std::vector<double>& attributes) const {
  if (derive_) derive_(dims, attributes.data());
}

void OpSchema::check_call(const Dims& dims, const std::vector<double>& attributes) const {
  if (check_) check_(dims, attributes.data());
}

uint64_t OpSchema::scratch_bytes(const Device& device, const Dims& dims,
                                 const std::vector<double>& attributes,
                                 const std::vector<Tensor>& inputs) const {
  if (device.is_cpu()) return scratch_ ? scratch_(dims, attributes.data()) : 0;
  return device_scratch_ ? device_scratch_(dims, attributes.data(), inputs) : 0;
}

Shape OpSchema::output_shape(const TensorSpec& spec, const Dims& dims,
                             const std::vector<Tensor>& inputs) const {
  Shape shape;
  for (const std::string& d : spec.dims) {
    if (d[0] == '*') {
      for (size_t i = 0; i < inputs_.size(); i++)
        if (inputs[i] && inputs_[i].dims[0] == d) return inputs[i].shape();
    }
    auto found = dims.find(d);
    if (!is_number(d) && found == dims.end())
      throw Error("ERR_SDPO_OP", str("[", name_, "] ", spec.name, ": nothing gives the size ", d));
    shape.push_back(is_number(d) ? std::stoll(d) : found->second);
  }
  return shape;
}

}  // namespace sdpo
