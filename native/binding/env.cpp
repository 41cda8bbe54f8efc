#include "binding/env.h"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "ops/run.h"

namespace sdpo {
namespace {

struct EnvState;

struct Failure {
  std::string code, message;
};

struct Job {
  explicit Job(Napi::Env env) : deferred(Napi::Promise::Deferred::New(env)) {}
  std::shared_ptr<EnvState> state;
  Napi::Promise::Deferred deferred;
  CancelFlag cancel;
  std::function<void()> work;
  std::function<Napi::Value(Napi::Env)> finish;
  bool failed = false;
  Failure failure;
};

void settle(Napi::Env env, Napi::Function, void*, Job* job);
using SettleFunction = Napi::TypedThreadSafeFunction<void, Job, settle>;

struct EnvState {
  std::mutex mutex;
  std::condition_variable idle;
  int running = 0;
  std::atomic<bool> closing{false};  // also ends the running job between its ops
  int pending = 0;                   // JavaScript thread only
  SettleFunction settle;
};

struct Instance {
  std::shared_ptr<EnvState> state = std::make_shared<EnvState>();
  Napi::FunctionReference tensor_constructor;
};

Napi::Value to_js(Napi::Env env, const Failure& failure) {
  Napi::Error error = Napi::Error::New(env, failure.message);
  error.Set("code", Napi::String::New(env, failure.code));
  return error.Value();
}

// What the exception that is being handled says.
Failure current_failure() {
  try {
    throw;
  } catch (const Error& error) {
    return {error.code(), error.what()};
  } catch (const std::bad_alloc&) {
    return {"ERR_SDPO_MEMORY", "the system has no memory left"};
  } catch (const std::exception& error) {
    return {"ERR_SDPO_DEVICE", error.what()};
  }
}

void settle(Napi::Env env, Napi::Function, void*, Job* raw) {
  std::unique_ptr<Job> job(raw);
  if (env == nullptr) return;
  if (--job->state->pending == 0) job->state->settle.Unref(env);
  if (!job->failed) {
    try {
      job->deferred.Resolve(job->finish(env));
      return;
    } catch (const Napi::Error& error) {
      job->deferred.Reject(error.Value());
      return;
    } catch (...) {
      job->failure = current_failure();
    }
  }
  job->deferred.Reject(to_js(env, job->failure));
}

void perform(Job& job) {
  try {
    CancelScope scope(job.cancel.get(), &job.state->closing);
    throw_if_cancelled();
    job.work();
  } catch (...) {
    job.failure = current_failure();
    job.failed = true;
  }
}

void execute(std::unique_ptr<Job> job) {
  const std::shared_ptr<EnvState> state = job->state;
  {
    std::lock_guard<std::mutex> lock(state->mutex);
    if (state->closing) return;
    state->running++;
  }
  perform(*job);
  job->work = nullptr;
  std::lock_guard<std::mutex> lock(state->mutex);
  if (!state->closing && state->settle.NonBlockingCall(job.get()) == napi_ok) job.release();
  state->running--;
  state->idle.notify_all();
}

void drain(Instance* instance) {
  instance->state->closing = true;
  std::unique_lock<std::mutex> lock(instance->state->mutex);
  instance->state->idle.wait(lock, [&] { return instance->state->running == 0; });
}

}  // namespace

// One thread for each device; it ends when the last user of the queue lets go and its jobs are done.
class WorkQueue {
 public:
  WorkQueue() {
    std::thread([shared = shared_] { loop(*shared); }).detach();
  }
  ~WorkQueue() {
    std::lock_guard<std::mutex> lock(shared_->mutex);
    shared_->stopping = true;
    shared_->wake.notify_one();
  }
  void post(std::unique_ptr<Job> job) {
    std::lock_guard<std::mutex> lock(shared_->mutex);
    shared_->jobs.push_back(std::move(job));
    shared_->wake.notify_one();
  }

 private:
  struct Shared {
    std::mutex mutex;
    std::condition_variable wake;
    std::deque<std::unique_ptr<Job>> jobs;
    bool stopping = false;
  };

  static void loop(Shared& shared) {
    std::unique_lock<std::mutex> lock(shared.mutex);
    for (;;) {
      shared.wake.wait(lock, [&] { return shared.stopping || !shared.jobs.empty(); });
      if (shared.jobs.empty()) return;
      std::unique_ptr<Job> job = std::move(shared.jobs.front());
      shared.jobs.pop_front();
      lock.unlock();
      execute(std::move(job));
      lock.lock();
    }
  }

  std::shared_ptr<Shared> shared_ = std::make_shared<Shared>();
};

std::shared_ptr<WorkQueue> make_queue() { return std::make_shared<WorkQueue>(); }

Napi::Value submit(Napi::Env env, const std::shared_ptr<WorkQueue>& queue, CancelFlag cancel,
                   std::function<void()> work, std::function<Napi::Value(Napi::Env)> finish) {
  auto job = std::make_unique<Job>(env);
  job->state = env.GetInstanceData<Instance>()->state;
  job->cancel = std::move(cancel);
  job->work = std::move(work);
  job->finish = std::move(finish);
  Napi::Promise promise = job->deferred.Promise();
  if (job->state->pending++ == 0) job->state->settle.Ref(env);
  queue->post(std::move(job));
  return promise;
}

Napi::Value guarded(Napi::Env env, const std::function<Napi::Value()>& body) {
  try {
    return body();
  } catch (const Napi::Error&) {
    throw;
  } catch (...) {
    throw Napi::Error(env, to_js(env, current_failure()));
  }
}

CancelFlag cancel_flag(const Napi::Value& value) {
  if (!value.IsExternal()) return nullptr;
  return *value.As<Napi::External<CancelFlag>>().Data();
}

void define_cancel(Napi::Env env, Napi::Object exports) {
  exports.Set("newCancelFlag", Napi::Function::New(env, [](const Napi::CallbackInfo& info) -> Napi::Value {
                auto* flag = new CancelFlag(std::make_shared<std::atomic<bool>>(false));
                return Napi::External<CancelFlag>::New(info.Env(), flag,
                                                       [](Napi::Env, CancelFlag* f) { delete f; });
              }));
  exports.Set("cancel", Napi::Function::New(env, [](const Napi::CallbackInfo& info) {
                if (CancelFlag flag = cancel_flag(info[0])) *flag = true;
              }));
}

Napi::FunctionReference& tensor_constructor(Napi::Env env) {
  return env.GetInstanceData<Instance>()->tensor_constructor;
}

void init_env(Napi::Env env) {
  auto* instance = new Instance;
  env.SetInstanceData(instance);
  instance->state->settle = SettleFunction::New(env, "sdpo", 0, 1);
  instance->state->settle.Unref(env);
  env.AddCleanupHook(drain, instance);  // after the thread-safe function: hooks run last in, first out
}

}  // namespace sdpo
