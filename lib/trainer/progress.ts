/** What a progress line shows of a step. */
export interface StepProgress {
  step: number;
  steps: number;
  /** Undefined where nothing was learnt. */
  loss: number | undefined;
  /** Left out where there are no rewards. */
  reward?: number | undefined;
  /** Tokens generated and trained on, all phases together. */
  tokens: number;
}

/** Where progress goes: a terminal or a plain stream. */
export interface ProgressStream {
  write(text: string): unknown;
  isTTY?: boolean;
  columns?: number;
}

const duration = (seconds: number) => {
  const s = Math.round(seconds);
  const two = (n: number) => String(n).padStart(2, "0");
  const hours = Math.floor(s / 3600);
  return `${hours > 0 ? `${hours}:` : ""}${two(Math.floor(s / 60) % 60)}:${two(s % 60)}`;
};

/** A progress line with tokens/s and time left: rewritten in place on a terminal, one line a step elsewhere. */
export class Progress {
  readonly #stream: ProgressStream;
  readonly #now: () => number;
  #start: number;
  #first: number | undefined;
  #lastTime: number;
  #line = "";

  constructor(stream: ProgressStream = process.stderr, now: () => number = () => performance.now() / 1000) {
    this.#stream = stream;
    this.#now = now;
    this.#start = now();
    this.#lastTime = this.#start;
  }

  /** Times count from here, not from when this was made. */
  start(): void {
    this.#start = this.#now();
    this.#lastTime = this.#start;
  }

  /** A step is done. */
  step({ step, steps, loss, reward, tokens }: StepProgress): void {
    const time = this.#now();
    this.#first ??= step;
    const perStep = (time - this.#start) / (step - this.#first + 1);
    const rate = Math.round(tokens / Math.max(time - this.#lastTime, 1e-9));
    this.#lastTime = time;
    this.#line =
      `step ${step}/${steps}  loss ${loss?.toFixed(4) ?? "-"}${reward === undefined ? "" : `  reward ${reward.toFixed(3)}`}  ` +
      `${rate} tokens/s  ${duration(perStep * (steps - step))} left`;
    if (this.#stream.isTTY) this.#rewrite(this.#line);
    else this.#stream.write(`${this.#line}\n`);
  }

  /** How far the step in progress is; shown on a terminal only. */
  phase(name: string, done: number, total: number): void {
    if (this.#stream.isTTY) this.#rewrite(`${this.#line}${this.#line && "  | "}${name} ${done}/${total}`);
  }

  /** A line of its own, such as a warning, above the progress line. */
  note(text: string): void {
    if (!this.#stream.isTTY) {
      this.#stream.write(`${text}\n`);
      return;
    }
    this.#stream.write(`\r\x1b[K${text}\n`);
    if (this.#line) this.#rewrite(this.#line);
  }

  /** Leaves the last line on the terminal and ends it. */
  end(): void {
    if (this.#stream.isTTY && this.#line) {
      this.#rewrite(this.#line);
      this.#stream.write("\n");
    }
  }

  #rewrite(text: string): void {
    this.#stream.write(`\r\x1b[K${text.slice(0, Math.max(1, (this.#stream.columns ?? 80) - 1))}`);
  }
}
