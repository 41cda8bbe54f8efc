// Running an op on a device: the schema's check, output allocation, scratch, the backend's kernel.
#pragma once
#include <atomic>
#include <string>
#include <vector>

#include "backends/device.h"
#include "ops/schema.h"

namespace sdpo {

// `inputs` in schema order, an empty Tensor for an optional one that is not given; `attributes` likewise.
// Outputs in schema order, an empty Tensor for one whose condition does not hold.
std::vector<Tensor> run_op(const OpSchema& op, Device& device, const std::vector<Tensor>& inputs,
                           const std::vector<double>& attributes);

// The same with given outputs (an empty Tensor: allocate as usual).
std::vector<Tensor> run_op_into(const OpSchema& op, Device& device, const std::vector<Tensor>& inputs,
                                std::vector<Tensor> outputs, const std::vector<double>& attributes);

// While one lives, run_op on this thread throws ERR_SDPO_ABORTED once either flag (which may be null) is set;
// a CPU kernel that works in chunks asks between them.
class CancelScope {
 public:
  CancelScope(const std::atomic<bool>* flag, const std::atomic<bool>* other);
  ~CancelScope();

 private:
  const std::atomic<bool>*previous_, *previous_other_;
};
void throw_if_cancelled();

}  // namespace sdpo
