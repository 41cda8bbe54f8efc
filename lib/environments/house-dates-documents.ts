import {
  FORMATS,
  formatOf,
  type HouseFormat,
  type HouseRequest,
  houseFeedback,
  NEW_CUSTOMERS,
  OLD_CUSTOMERS,
  randomDate,
  renderDate,
  renderRequest,
  SEPARATORS,
  worldFormats,
} from "./house-dates-formats.js";
import { ANSWER_TOKENS, decodeWords, encodeWords, NEWLINE_ID, WORDS } from "./house-dates-words.js";
import type { Random } from "./random.js";

/**
 * A session to pretrain on: token ids, and 1 in `mask` for each token that is to be learnt (answers only).
 */
export interface HouseDocument {
  ids: number[];
  mask: number[];
}

const SEPARATOR_IDS = SEPARATORS.flatMap(encodeWords);
const DATE_WORDS = WORDS.indexOf("for");

/** The session while it is written, with the formats that its customers have in it. */
class Session implements HouseDocument {
  readonly ids: number[] = [];
  readonly mask: number[] = [];
  readonly formats: ReadonlyMap<string, HouseFormat>;

  constructor(random: Random) {
    this.formats = worldFormats(NEW_CUSTOMERS.map(() => random.pick(FORMATS)));
  }

  add(ids: readonly number[], learn: boolean): void {
    this.ids.push(...ids);
    this.mask.push(...ids.map(() => (learn ? 1 : 0)));
  }

  verdict(line: string): void {
    this.add([...encodeWords(line), NEWLINE_ID], false);
  }

  right(request: HouseRequest): number[] {
    return encodeWords(`${renderDate(request, formatOf(this.formats, request))}\n`);
  }

  ask(request: HouseRequest, answer = this.right(request), learn = true): void {
    this.add(encodeWords(renderRequest(request)), false);
    this.add(answer, learn);
  }
}

/**
 * An answer with one token replaced, doubled or dropped; it still ends in a newline and fits in six tokens.
 */
function garble(random: Random, answer: readonly number[]): number[] {
  const garbled = answer.slice(0, -1);
  const i = random.below(garbled.length);
  const u = random.uniform();
  if (u < 0.6) garbled[i] = random.pick([...garbled, ...SEPARATOR_IDS, 2 + random.below(DATE_WORDS - 2)]);
  else if (u < 0.8) garbled.splice(i, 0, garbled[i]!);
  else garbled.splice(i, 1);
  return [...garbled.slice(0, ANSWER_TOKENS - 1), NEWLINE_ID];
}

/** Two or three right answers for one or two customers, old and new. */
function writeLog(random: Random, session: Session): void {
  const anyone = () => random.pick(random.uniform() < 0.4 ? NEW_CUSTOMERS : OLD_CUSTOMERS);
  const pair = [anyone(), anyone()];
  const count = 2 + random.below(2);
  for (let i = 0; i < count; i++) {
    if (i > 0) session.verdict("ok");
    session.ask({ customer: random.pick(pair), ...randomDate(random) });
  }
}

/**
 * An attempt in a random format or a near miss, sometimes garbled (and then not learnt); feedback; the right
 * answer.
 */
function writeCorrection(random: Random, session: Session): void {
  const request = { customer: random.pick(NEW_CUSTOMERS), ...randomDate(random) };
  const format = formatOf(session.formats, request);
  let tried = random.pick(FORMATS);
  if (random.uniform() < 0.5) {
    const [order, separator, month, year] = format.map((rule, i) =>
      random.uniform() < 0.4 ? tried[i]! : rule,
    );
    tried = [order!, separator!, month!, year!];
  }
  let attempt = encodeWords(`${renderDate(request, tried)}\n`);
  const learn = random.uniform() >= 0.1;
  if (!learn) attempt = garble(random, attempt);
  const kind = random.uniform() < 0.7 ? "rules" : "expected";
  session.ask(request, attempt, learn);
  session.verdict(houseFeedback(request, format, decodeWords(attempt.slice(0, -1)), kind));
  session.ask(request);
  if (random.uniform() < 0.25) {
    session.verdict("ok");
    session.ask({ customer: request.customer, ...randomDate(random) });
  }
}

/**
 * One session log whose new customers have formats of their own: 40% right answers in a row, 10% a right
 * answer and the same request again, 50% an attempt (one in seven is right), its verdict and the right
 * answer. At most 44 tokens.
 */
export function houseDocument(random: Random): HouseDocument {
  const session = new Session(random);
  const u = random.uniform();
  if (u < 0.4) {
    writeLog(random, session);
  } else if (u < 0.5) {
    const request = { customer: random.pick(NEW_CUSTOMERS), ...randomDate(random) };
    session.ask(request);
    session.verdict("ok");
    session.ask(request);
  } else {
    writeCorrection(random, session);
  }
  return { ids: session.ids, mask: session.mask };
}
