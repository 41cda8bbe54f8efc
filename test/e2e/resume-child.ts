// One training run in a process of its own: <configuration as JSON> [<last step>]. Says each step that is done on stdout.
import { Trainer } from "../../lib/trainer/trainer.js";
import { tale } from "./tale.js";

const config = JSON.parse(process.argv[3]!) as Record<string, unknown>;
using trainer = await Trainer.create({ ...config, environment: tale } as never);
for await (const { step } of trainer.run()) {
  process.stdout.write(`${step}\n`);
  // Waits for its end, so that a run that is to be killed is never faster than the kill.
  if (step === Number(process.argv[4])) await new Promise((resolve) => setTimeout(resolve, 60_000));
}
