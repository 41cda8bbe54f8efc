#include "models/store.h"

#include <algorithm>

namespace sdpo {

constexpr int64_t kAlignment = 16;

ParameterStore::ParameterStore(std::shared_ptr<Device> device, std::vector<Parameter> parameters)
    : device_(std::move(device)), parameters_(std::move(parameters)) {
  std::stable_sort(parameters_.begin(), parameters_.end(), [](const Parameter& a, const Parameter& b) {
    return (a.shape.size() > 1) > (b.shape.size() > 1);
  });
  for (size_t i = 0; i < parameters_.size(); i++) {
    Parameter& p = parameters_[i];
    if (!index_.emplace(p.name, i).second)
      throw Error("ERR_SDPO_MODEL", str("parameter '", p.name, "' stands twice"));
    p.offset = total_;
    total_ += (element_count(p.shape) + kAlignment - 1) / kAlignment * kAlignment;
    if (p.shape.size() > 1) matrices_ = total_;
  }
}

void ParameterStore::add_slot(const std::string& slot, DType dtype) {
  std::lock_guard<std::mutex> lock(mutex_);
  auto found = slots_.find(slot);
  if (found == slots_.end()) {
    slots_[slot] = Tensor::zeros(device_, dtype, {total_});
  } else if (found->second.dtype() != dtype) {
    throw Error("ERR_SDPO_MODEL", str("slot '", slot, "' exists as ", dtype_name(found->second.dtype())));
  }
}

void ParameterStore::remove_slot(const std::string& slot) {
  std::lock_guard<std::mutex> lock(mutex_);
  slots_.erase(slot);
}

bool ParameterStore::has_slot(const std::string& slot) const {
  std::lock_guard<std::mutex> lock(mutex_);
  return slots_.count(slot) != 0;
}

Tensor ParameterStore::flat(const std::string& slot) const {
  std::lock_guard<std::mutex> lock(mutex_);
  auto found = slots_.find(slot);
  if (found == slots_.end()) throw Error("ERR_SDPO_MODEL", str("the model has no slot '", slot, "'"));
  return found->second;
}

Tensor ParameterStore::matrices(const std::string& slot) const { return flat(slot).view(0, {matrices_}); }

Tensor ParameterStore::vectors(const std::string& slot) const {
  return flat(slot).view(matrices_, {total_ - matrices_});
}

Tensor ParameterStore::view(const std::string& slot, const std::string& name) const {
  auto found = index_.find(name);
  if (found == index_.end()) throw Error("ERR_SDPO_MODEL", str("the model has no parameter '", name, "'"));
  const Parameter& p = parameters_[found->second];
  return flat(slot).view(p.offset, p.shape);
}

}  // namespace sdpo
