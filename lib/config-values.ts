import * as v from "valibot";

/** Every schema's message is what was expected; {@link expectation} gives it. */
export const text = v.pipe(
  v.string("a text"),
  v.check((value) => value.trim() !== "", "a text that is not empty"),
);

export const boolean = v.boolean("true or false");

export const seed = integer(0, Number.MAX_SAFE_INTEGER);

export const options = v.custom<Record<string, unknown>>(
  (value) => typeof value === "object" && value !== null && !Array.isArray(value),
  "an object",
);

export function number(low: number, high: number) {
  const expected = `a number from ${low} to ${high}`;
  return v.pipe(
    v.number(expected),
    v.check((value) => value >= low && value <= high, expected),
  );
}

/** A number above 0. */
export function positive(high: number) {
  const expected = `a number above 0, at most ${high}`;
  return v.pipe(
    v.number(expected),
    v.check((value) => value > 0 && value <= high, expected),
  );
}

export function integer(low: number, high: number) {
  const expected = `an integer from ${low} to ${high === Number.MAX_SAFE_INTEGER ? "2^53 - 1" : high}`;
  return v.pipe(
    v.number(expected),
    v.check((value) => Number.isSafeInteger(value) && value >= low && value <= high, expected),
  );
}

export function choice<const T extends readonly [string, ...string[]]>(...values: T) {
  return v.picklist(values, values.map((value) => JSON.stringify(value)).join(" or "));
}

/** The value or null, which turns the thing off. */
export function orNull<S extends v.GenericSchema>(schema: S) {
  return v.nullable(schema);
}

/** A key that must be given. */
export function required<S extends v.GenericSchema>(schema: S, description: string) {
  return v.pipe(schema, v.description(description));
}

/** A key with a default. */
export function key<S extends v.GenericSchema, const D extends v.InferInput<S>>(
  schema: S,
  fallback: D,
  description: string,
) {
  return v.optional(v.pipe(schema, v.description(description)), () => fallback);
}

/** What a value should have been, such as `a number from 0 to 1`; undefined where it fits. */
export function expectation(schema: v.GenericSchema, value: unknown): string | undefined {
  const result = v.safeParse(schema, value, { abortEarly: true });
  if (result.success) return undefined;
  return `${result.issues[0].message}${v.is(schema, null) ? " or null" : ""}`;
}
