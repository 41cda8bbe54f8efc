// sdpo inside another program: `node docs/examples/embed.mjs <model folder or .gguf>`
import { defineEnvironment, distillationLoss, Model, openDevice, Trainer } from "sdpo";

const device = await openDevice("auto");
const model = await Model.load(process.argv[2], { device });
const signal = AbortSignal.timeout(60_000);
const messages = [{ role: "user", content: "Name three acids." }];
for await (const { text } of model.generate(messages, { maxTokens: 24, signal })) process.stdout.write(text);

const studentLogits = Float32Array.of(2, 1, 0, 0, 1, 2); // [B,T,V] = [1,2,3]
const teacherLogits = Float32Array.of(0, 1, 2, 0, 1, 2);
const batch = { studentLogits, teacherLogits, tokenIds: [[0, 2]], completionMask: [[1, 1]] };
console.log(`\nloss ${(await distillationLoss(device, batch)).loss.toFixed(4)}`);

const load = async function* (rows) { yield* rows; };
const prompt = ({ question }) => [{ role: "user", content: question }];
const verify = async ({ most }, { text: { length } }) =>
  length <= most ? { reward: 1 } : { reward: 0, feedback: `${length} characters, ${most} are allowed.` };
const environment = defineEnvironment({ name: "short-answers", load, prompt, verify });
const data = [{ question: "Name an acid.", most: 20 }];
const sizes = { steps: 1, tasksPerBatch: 1, rolloutsPerTask: 4, maxCompletionTokens: 16 };
const trainer = await Trainer.create({ model: process.argv[2], environment, data, ...sizes }, { device });
for await (const { metrics } of trainer.run({ signal })) console.log("distilled", metrics["distilled.fraction"]);
