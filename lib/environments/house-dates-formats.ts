import { SdpoError, show } from "../errors.js";
import { Random } from "./random.js";

/** A date of the tasks: day 1 to 28, month 1 to 12, year 1930 to 1999. */
export interface HouseDate {
  day: number;
  month: number;
  year: number;
}

/**
 * A date for a customer: A to H (formats drawn by the world's seed), 01 to 40 (formats that never change).
 */
export interface HouseRequest extends HouseDate {
  customer: string;
}

/** A house format: for each of {@link ASPECTS}, the number of its rule. */
export type HouseFormat = readonly [order: number, separator: number, month: number, year: number];

const DATE_RANGES = [
  ["day", 1, 28],
  ["month", 1, 12],
  ["year", 1930, 1999],
] as const;
export const MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
export const SEPARATORS = ["-", "/", ".", "_"];
/** The four things a format decides, each with its rules as feedback names them. */
export const ASPECTS = [
  ["day first", "month first", "year first"],
  SEPARATORS.map((separator) => `use ${separator}`),
  ["month as number", "month as name", "month in capitals"],
  ["2-digit year", "4-digit year"],
] as const;
/** All 72 formats. */
export const FORMATS: readonly HouseFormat[] = [0, 1, 2].flatMap((order) =>
  [0, 1, 2, 3].flatMap((separator) =>
    [0, 1, 2].flatMap((month) => [0, 1].map((year): HouseFormat => [order, separator, month, year])),
  ),
);

/** Customers whose formats each world draws anew, and customers whose formats never change. */
export const NEW_CUSTOMERS = [..."ABCDEFGH"];
export const OLD_CUSTOMERS = Array.from({ length: 40 }, (_, i) => twoDigits(i + 1));

const OLD_FORMATS = new Map(
  new Random(7).sample(FORMATS, 40).map((format, i) => [OLD_CUSTOMERS[i]!, format]),
);

export function twoDigits(n: number): string {
  return String(n % 100).padStart(2, "0");
}

/**
 * The formats of all customers in one world: the new customers' in the order given, the old ones' for ever.
 */
export function worldFormats(newFormats: readonly HouseFormat[]): Map<string, HouseFormat> {
  return new Map([...NEW_CUSTOMERS.map((name, i) => [name, newFormats[i]!] as const), ...OLD_FORMATS]);
}

/** The world of a seed: eight different formats for the new customers. */
export function drawWorld(seed: number): Map<string, HouseFormat> {
  return worldFormats(new Random(seed, 1).sample(FORMATS, NEW_CUSTOMERS.length));
}

/** The date in a format, its words separated by blanks: `JUL / 28 / 94`. */
export function renderDate(date: HouseDate, [order, separator, month, year]: HouseFormat): string {
  const name = MONTHS[date.month - 1]!;
  const d = twoDigits(date.day);
  const m = [twoDigits(date.month), name, name.toUpperCase()][month]!;
  const y = year === 1 ? String(date.year) : twoDigits(date.year);
  return [
    [d, m, y],
    [m, d, y],
    [y, m, d],
  ][order]!.join(` ${SEPARATORS[separator]} `);
}

/** The request that a customer's date be written: `28 jul 1994 for B:`. */
export function renderRequest({ day, month, year, customer }: HouseRequest): string {
  return `${twoDigits(day)} ${MONTHS[month - 1]} ${year} for ${customer}:`;
}

/**
 * The rules that an answer breaks; none where it is right, all four where it is no format of this date. An
 * answer that several formats explain (in 05 - 05 - 94 day and month look alike) is taken for the one nearest
 * to `format`.
 */
export function brokenRules(date: HouseDate, format: HouseFormat, answer: string): string[] {
  const rules = ASPECTS.map((aspect, i) => aspect[format[i]!]!);
  const explanations = FORMATS.filter((candidate) => renderDate(date, candidate) === answer);
  return explanations
    .map((candidate) => rules.filter((_, i) => candidate[i] !== format[i]))
    .reduce((best, broken) => (broken.length < best.length ? broken : best), rules);
}

/** What the environment says of an answer: `ok`, or `error:` and every broken rule, or the right answer. */
export function houseFeedback(
  date: HouseDate,
  format: HouseFormat,
  answer: string,
  kind: "rules" | "expected",
): string {
  const broken = brokenRules(date, format, answer);
  if (broken.length === 0) return "ok";
  return `error: ${kind === "rules" ? broken.join(" , ") : `expected ${renderDate(date, format)}`}`;
}

/**
 * Is the date kept for testing? One in five is, by an integer hash, so training and test dates never meet.
 */
export function isHeldOut({ day, month, year }: HouseDate): boolean {
  let hash = Math.imul(day + 32 * (month + 16 * year), 0x9e3779b1);
  hash = Math.imul(hash ^ (hash >>> 15), 0x85ebca6b);
  return ((hash ^ (hash >>> 13)) >>> 0) % 5 === 0;
}

/** A date of a split, or any date. */
export function randomDate(random: Random, split?: "train" | "test"): HouseDate {
  for (;;) {
    const date = { day: 1 + random.below(28), month: 1 + random.below(12), year: 1930 + random.below(70) };
    if (split === undefined || isHeldOut(date) === (split === "test")) return date;
  }
}

/** The format that a request wants. Throws `ERR_SDPO_DATA` for a customer or a date that is not there. */
export function formatOf(world: ReadonlyMap<string, HouseFormat>, request: HouseRequest): HouseFormat {
  const refuse = (field: string, expected: string, value: unknown) =>
    new SdpoError("ERR_SDPO_DATA", `house-dates: ${field}: expected ${expected}, got ${show(value)}`);
  for (const [field, low, high] of DATE_RANGES) {
    const value = request[field];
    if (!(Number.isInteger(value) && value >= low && value <= high))
      throw refuse(field, `${low} to ${high}`, value);
  }
  const format = world.get(request.customer);
  if (format === undefined) throw refuse("customer", "A to H or 01 to 40", request.customer);
  return format;
}
