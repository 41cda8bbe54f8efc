/** The public interface of `sdpo`: re-exports only. */
export type { SftConfig, SftInput, TrainConfig, TrainInput } from "./config.js";
export { resolveConfig, resolveSft } from "./config.js";
export type { ExactOptions, ExactTask } from "./environments/exact.js";
export type { HouseDatesOptions } from "./environments/house-dates.js";
export { createEnvironment, environments } from "./environments/index.js";
export type { McqOptions, McqTask } from "./environments/mcq.js";
export type {
  ChatMessage,
  Completion,
  DataSource,
  Environment,
  TeacherParts,
  Verdict,
} from "./environments/types.js";
export { defineEnvironment } from "./environments/types.js";
export { SdpoError, type SdpoErrorCode } from "./errors.js";
export { defaultTemplates, type Templates, teacherMessages } from "./feedback/templates.js";
export type { Aggregation } from "./losses/aggregation.js";
export {
  type DistillationInputs,
  type DistillationOptions,
  type DistillationResult,
  distillationLoss,
} from "./losses/distillation.js";
export { groupAdvantages } from "./losses/group-advantages.js";
export {
  type LinearDistillationInputs,
  type LinearDistillationResult,
  linearDistillationLoss,
} from "./losses/linear-distillation.js";
export { type PolicyInputs, type PolicyOptions, type PolicyResult, policyLoss } from "./losses/policy.js";
export type { ModelConfig } from "./models/formats/config.js";
export type { GeneratedToken, GenerateOptions, Prompt } from "./models/generate.js";
export { type ForwardOptions, Model } from "./models/model.js";
export { type PackedSequences, packSequences } from "./models/packing.js";
export type { SamplingOptions } from "./models/sampling.js";
export { Device, type DeviceMemory, openDevice } from "./native/device.js";
export type { DType } from "./native/load.js";
export type { OpAttributes, OpInputs, OpName, OpOutputs } from "./native/ops.generated.js";
export { run } from "./native/run.js";
export { type HostArray, Tensor } from "./native/tensor.js";
export type { PromptedTask, Rollout, RolloutGroup, VerifiedRollout } from "./rollouts/types.js";
export { type ChatOptions, Tokenizer } from "./text/tokenizer.js";
export { type LoadedTasks, type LoadOptions, loadTasks } from "./trainer/data.js";
export { type DryRunReport, dryRun } from "./trainer/dry-run.js";
export { type EvaluateOptions, type EvaluationReport, evaluate } from "./trainer/evaluate.js";
export { findPreset, type Preset, presetNames } from "./trainer/presets.js";
export { type SftOptions, type SftReport, type SftRunInput, sft } from "./trainer/sft.js";
export { type StepReport, Trainer, type TrainerHooks, type TrainerInput } from "./trainer/trainer.js";
