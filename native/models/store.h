// The parameter store: every parameter of a model in flat, contiguous buffers, one buffer a *slot*.
//
// Slots: "weight" (the student), "teacher", "master" (f32, where weights are bf16), "gradient",
// "first_moment", "second_moment". All have the same layout, so that an optimizer step is one pass over flat
// memory, and a slot's dtype is its own. Matrices come first, then vectors: weight decay takes the first
// part. Every parameter starts at a multiple of 16 elements; the gaps are zero and stay zero.
#pragma once
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "backends/device.h"
#include "backends/tensor.h"

namespace sdpo {

struct Parameter {
  std::string name;  // Hugging Face's
  Shape shape;
  int64_t offset = 0;
};

class ParameterStore {
 public:
  ParameterStore(std::shared_ptr<Device> device, std::vector<Parameter> parameters);

  // Makes a slot of zeros; throws where it exists with another dtype.
  void add_slot(const std::string& slot, DType dtype);
  void remove_slot(const std::string& slot);
  bool has_slot(const std::string& slot) const;

  Tensor flat(const std::string& slot) const;      // [total]
  Tensor matrices(const std::string& slot) const;  // the part with two or more dimensions
  Tensor vectors(const std::string& slot) const;   // the rest
  Tensor view(const std::string& slot, const std::string& name) const;
  bool has(const std::string& name) const { return index_.count(name) != 0; }

  const std::vector<Parameter>& parameters() const { return parameters_; }
  const std::shared_ptr<Device>& device() const { return device_; }

 private:
  std::shared_ptr<Device> device_;
  std::vector<Parameter> parameters_;
  std::map<std::string, size_t> index_;
  mutable std::mutex mutex_;  // slots come and go on one thread while ops run on another
  std::map<std::string, Tensor> slots_;
  int64_t matrices_ = 0, total_ = 0;
};

}  // namespace sdpo
