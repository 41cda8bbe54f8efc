import { describe, expect, test } from "vitest";
import { type HouseDatesOptions, houseDates } from "../../lib/environments/house-dates.js";
import { houseDocument } from "../../lib/environments/house-dates-documents.js";
import {
  brokenRules,
  drawWorld,
  FORMATS,
  type HouseFormat,
  type HouseRequest,
  houseFeedback,
  isHeldOut,
  NEW_CUSTOMERS,
  OLD_CUSTOMERS,
  renderDate,
} from "../../lib/environments/house-dates-formats.js";
import {
  decodeWords,
  encodeWords,
  NEWLINE_ID,
  WORDS,
  wordTokenizerFiles,
} from "../../lib/environments/house-dates-words.js";
import { Random } from "../../lib/environments/random.js";
import { Tokenizer } from "../../lib/text/tokenizer.js";

const date = { day: 28, month: 7, year: 1994 };
const american: HouseFormat = [1, 1, 2, 0];

async function tasks(source: string, options: HouseDatesOptions = {}): Promise<HouseRequest[]> {
  const list = [];
  for await (const task of houseDates(options).load(source)) list.push(task);
  return list;
}

describe("formats", () => {
  test("there are 72, and each writes the date in its own way", () => {
    expect(new Set(FORMATS.map(String)).size).toBe(72);
    expect(new Set(FORMATS.map((format) => renderDate(date, format))).size).toBe(72);
  });

  test.each<[HouseFormat, string]>([
    [american, "JUL / 28 / 94"],
    [[0, 0, 0, 0], "28 - 07 - 94"],
    [[0, 2, 1, 1], "28 . jul . 1994"],
    [[2, 3, 0, 1], "1994 _ 07 _ 28"],
    [[2, 0, 2, 0], "94 - JUL - 28"],
  ])("%j writes %s", (format, text) => expect(renderDate(date, format)).toBe(text));

  test("feedback names every broken rule, and only those", () => {
    expect(houseFeedback(date, american, "28 - 07 - 94", "rules")).toBe(
      "error: month first , use / , month in capitals",
    );
    expect(houseFeedback(date, american, "JUL / 28 / 94", "rules")).toBe("ok");
    expect(houseFeedback(date, american, "JUL / 28 / 1994", "rules")).toBe("error: 2-digit year");
    expect(houseFeedback(date, american, "JUL / 28", "rules")).toBe(
      "error: month first , use / , month in capitals , 2-digit year",
    );
    expect(houseFeedback(date, american, "28 - 07 - 94", "expected")).toBe("error: expected JUL / 28 / 94");
  });

  test("an attempt in any format breaks the rules in which the formats differ (5,184 pairs)", () => {
    for (const want of FORMATS) {
      for (const tried of FORMATS) {
        const differ = want.filter((rule, i) => rule !== tried[i]).length;
        expect(brokenRules(date, want, renderDate(date, tried))).toHaveLength(differ);
      }
    }
  });

  test("day and month that look alike are read in the writer's favour", () => {
    const may5 = { day: 5, month: 5, year: 1994 };
    expect(brokenRules(may5, [1, 0, 1, 0], "05 - 05 - 94")).toEqual(["month as name"]);
    expect(brokenRules(may5, [1, 0, 0, 0], "05 - 05 - 94")).toEqual([]);
  });
});

describe("worlds", () => {
  test("a seed gives the new customers eight different formats; the old ones keep theirs", () => {
    const [a, again, b] = [drawWorld(1), drawWorld(1), drawWorld(2)];
    expect([...a.keys()]).toEqual([...NEW_CUSTOMERS, ...OLD_CUSTOMERS]);
    expect([...again]).toEqual([...a]);
    expect(new Set(NEW_CUSTOMERS.map((name) => String(a.get(name)))).size).toBe(8);
    expect(NEW_CUSTOMERS.map((name) => b.get(name))).not.toEqual(NEW_CUSTOMERS.map((name) => a.get(name)));
    expect(OLD_CUSTOMERS.map((name) => b.get(name))).toEqual(OLD_CUSTOMERS.map((name) => a.get(name)));
    expect(new Set(OLD_CUSTOMERS.map((name) => String(b.get(name)))).size).toBe(40);
  });

  test("one date in five is held out, whatever the day, month and year", () => {
    const share = (match: (d: typeof date) => boolean) => {
      let [held, all] = [0, 0];
      for (let day = 1; day <= 28; day++) {
        for (let month = 1; month <= 12; month++) {
          for (let year = 1930; year <= 1999; year++) {
            const candidate = { day, month, year };
            if (!match(candidate)) continue;
            all++;
            if (isHeldOut(candidate)) held++;
          }
        }
      }
      return held / all;
    };
    expect(share(() => true)).toBeCloseTo(0.2, 2);
    for (let month = 1; month <= 12; month++)
      expect(Math.abs(share((d) => d.month === month) - 0.2)).toBeLessThan(0.05);
    for (let day = 1; day <= 28; day++)
      expect(Math.abs(share((d) => d.day === day) - 0.2)).toBeLessThan(0.07);
  });
});

describe("the environment", () => {
  const env = houseDates({ seed: 3 });
  const task: HouseRequest = { customer: "B", ...date };
  const format = drawWorld(3).get("B")!;

  test("train and test tasks are drawn by seed, for the customers asked for, and their dates never meet", async () => {
    const [train, test_, other] = [
      await tasks("train"),
      await tasks("test"),
      await tasks("train", { seed: 1 }),
    ];
    expect([train.length, test_.length]).toEqual([4096, 256]);
    expect(new Set(train.map((t) => t.customer))).toEqual(new Set("ABCD"));
    expect(new Set((await tasks("train", { customers: 8 })).map((t) => t.customer))).toEqual(
      new Set("ABCDEFGH"),
    );
    const key = (t: HouseRequest) => `${t.day} ${t.month} ${t.year}`;
    const held = new Set(test_.map(key));
    expect(train.filter((t) => held.has(key(t)))).toEqual([]);
    expect(test_.every(isHeldOut)).toBe(true);
    expect(await tasks("train")).toEqual(train);
    expect(other).not.toEqual(train);
    for (const [field, low, high] of [
      ["day", 1, 28],
      ["month", 1, 12],
      ["year", 1930, 1999],
    ] as const) {
      const values = train.map((t) => t[field]);
      expect([Math.min(...values), Math.max(...values)]).toEqual([low, high]);
    }
  });

  test("asks with one user message, in five tokens", () => {
    expect(env.prompt(task)).toEqual([{ role: "user", content: "28 jul 1994 for B:" }]);
    expect(encodeWords("28 jul 1994 for B:")).toHaveLength(5);
  });

  test("takes exactly the right words, with or without the newline", async () => {
    const right = renderDate(date, format);
    for (const text of [right, `${right}\n`, `${right} \n`, ` ${right}`]) {
      expect(await env.verify(task, { text }, {})).toEqual({ reward: 1, metrics: { brokenRules: 0 } });
    }
    for (const text of ["", "\n", right.replaceAll(" ", ""), `${right} 94`, `${right}\nok`, "ok"]) {
      expect(await env.verify(task, { text }, {})).toMatchObject({ reward: 0, metrics: { brokenRules: 4 } });
    }
  });

  test("72 formats: one right, the others get the rules they break", async () => {
    const verdicts = await Promise.all(
      FORMATS.map((f) => env.verify(task, { text: renderDate(date, f) }, {})),
    );
    expect(verdicts.filter((verdict) => verdict.reward === 1)).toHaveLength(1);
    for (const verdict of verdicts) {
      const named = verdict.feedback?.replace("error: ", "").split(" , ").length ?? 0;
      expect(named).toBe(verdict.metrics!.brokenRules);
    }
  });

  test("feedback may tell the answer, or nothing", async () => {
    const expected = await houseDates({ seed: 3, feedback: "expected" }).verify(task, { text: "ok" }, {});
    expect(expected.feedback).toBe(`error: expected ${renderDate(date, format)}`);
    const none = await houseDates({ seed: 3, feedback: "none" }).verify(task, { text: "ok" }, {});
    expect(none).toEqual({ reward: 0, metrics: { brokenRules: 4 } });
  });

  test("the teacher's prompt is the log of a session that ends in the same request", () => {
    const request = "28 jul 1994 for B:";
    const log = (parts: Parameters<NonNullable<typeof env.teacherPrompt>>[1]) =>
      env.teacherPrompt!(task, parts)[0]!.content;
    expect(log({ attempt: "28 - 07 - 94 \n", feedback: "error: use /" })).toBe(
      `${request} 28 - 07 - 94\nerror: use /\n${request}`,
    );
    expect(log({ attempt: "x", demonstration: "JUL / 28 / 94\n" })).toBe(
      `${request} JUL / 28 / 94\nok\n${request}`,
    );
    expect(log({ attempt: "x", demonstration: "y", feedback: "z" })).toBe(
      `${request} x\nz\n${request} y\nok\n${request}`,
    );
  });

  test.each(["tests", "", "/tmp/x.json", ["x"], undefined])("refuses the source %j", async (source) => {
    await expect(tasks(source as string)).rejects.toThrow(
      expect.objectContaining({
        code: "ERR_SDPO_DATA",
        message: expect.stringContaining('"train" or "test"'),
      }),
    );
  });

  test.each([
    [{ customer: "Z" }, "customer: expected A to H or 01 to 40", '"Z"'],
    [{ day: 29 }, "day: expected 1 to 28", "29"],
    [{ month: 0 }, "month: expected 1 to 12", "0"],
    [{ year: 1994.5 }, "year: expected 1930 to 1999", "1994.5"],
    [{ year: undefined as never }, "year: expected", "undefined"],
  ])("refuses a task of one's own with %j", async (change, ...words) => {
    const bad = { ...task, ...change };
    await expect(env.verify(bad, { text: "" }, {})).rejects.toMatchObject({ code: "ERR_SDPO_DATA" });
    expect(() => env.prompt(bad)).toThrow(expect.objectContaining({ code: "ERR_SDPO_DATA" }));
    for (const word of words) expect(() => env.prompt(bad)).toThrow(word);
  });
});

describe("words", () => {
  test("there are 263, all different; 0 pads and 1 is the newline", () => {
    expect(WORDS).toHaveLength(263);
    expect(new Set(WORDS).size).toBe(263);
    expect(WORDS[NEWLINE_ID]).toBe("\n");
  });

  test("every word encodes to its id, and all together too", () => {
    for (const [id, word] of WORDS.entries()) expect(encodeWords(word)).toEqual([id]);
    const ids = WORDS.map((_, id) => id);
    expect(encodeWords(decodeWords(ids))).toEqual(ids);
    expect(encodeWords([...WORDS].reverse().join(" "))).toEqual([...ids].reverse());
  });

  test("a rule is one word only where it stands alone", () => {
    expect(encodeWords("error: month first , use /\n").map((id) => WORDS[id])).toEqual([
      "error:",
      "month first",
      ",",
      "use /",
      "\n",
    ]);
    expect(() => encodeWords("month firstly")).toThrow(expect.objectContaining({ code: "ERR_SDPO_TEXT" }));
    expect(() => encodeWords("use /ok")).toThrow(expect.objectContaining({ code: "ERR_SDPO_TEXT" }));
    expect(() => encodeWords("28 juli 1994")).toThrow(/"juli"; did you mean "jul"/);
    expect(() => decodeWords([263])).toThrow(expect.objectContaining({ code: "ERR_SDPO_TEXT" }));
  });

  test("the tokenizer files say the same to a model's tokenizer", () => {
    const files = wordTokenizerFiles();
    const tokenizer = Tokenizer.fromFiles({
      tokenizerJson: files["tokenizer.json"],
      tokenizerConfig: files["tokenizer_config.json"],
    });
    expect(tokenizer.vocabularySize).toBe(263);
    expect(tokenizer.eosTokenIds).toEqual([]);
    const random = new Random(5);
    for (let i = 0; i < 50; i++) {
      const { ids } = houseDocument(random);
      const text = decodeWords(ids);
      expect([...tokenizer.encode(text)]).toEqual(ids);
      expect([...tokenizer.chat([{ role: "user", content: text }]).ids]).toEqual(ids);
      expect(tokenizer.decode(ids).replace(/ ?\n ?/g, "\n")).toBe(text);
    }
  });
});

describe("documents", () => {
  const random = new Random(17);
  const documents = Array.from({ length: 4000 }, () => houseDocument(random));
  const texts = documents.map(({ ids }) => decodeWords(ids));
  const share = (match: (text: string, i: number) => boolean) => texts.filter(match).length / texts.length;

  test("the same generator writes the same documents", () => {
    const again = new Random(17);
    expect(Array.from({ length: 20 }, () => houseDocument(again))).toEqual(documents.slice(0, 20));
  });

  test("every document is lines of requests, answers and verdicts, and ends in a newline", () => {
    const request = String.raw`\d\d [a-z]{3} 19\d\d for [A-H0-9]+: .+\n`;
    const shape = new RegExp(`^${request}((ok|error: .*)\n${request})+$`);
    for (const text of texts) expect(text).toMatch(shape);
    expect(Math.max(...documents.map(({ ids }) => ids.length))).toBeLessThanOrEqual(44);
  });

  test("exactly the answers are learnt, up to their newline, but for garbled first attempts", () => {
    let garbled = 0;
    for (const { ids, mask } of documents) {
      const wanted = ids.map(() => 0);
      for (const [i, id] of ids.entries()) {
        const starts = WORDS[id]!.endsWith(":") && WORDS[id] !== "error:";
        if (starts) for (let j = i + 1; j === i + 1 || ids[j - 1] !== NEWLINE_ID; j++) wanted[j] = 1;
      }
      if (String(mask) !== String(wanted)) {
        garbled++;
        wanted.fill(0, 0, ids.indexOf(NEWLINE_ID) + 1);
        expect(mask).toEqual(wanted);
      }
    }
    expect(garbled / documents.length).toBeCloseTo(0.05, 1);
  });

  test("the kinds have their shares, and the last verdict is true", () => {
    // An attempt happens to be right as a random format, or as a near miss that misses nothing; 0.9: not garbled.
    const right = 0.9 * (0.5 / 72 + 0.5 * [3, 4, 3, 2].reduce((p, n) => p * (0.6 + 0.4 / n), 1));
    const fails = share((text) => text.includes("error:"));
    expect(Math.abs(fails - 0.5 * (1 - right))).toBeLessThan(0.025);
    expect(Math.abs(share((text) => text.includes("expected")) - 0.3 * fails)).toBeLessThan(0.04);
    expect(
      Math.abs(share((text) => /^(\S+ \S+ \S+ for \S+ .*\n)ok\n\1$/.test(text)) - 0.1 - 0.5 * right * 0.75),
    ).toBeLessThan(0.03);
    for (const text of texts.filter((t) => t.includes("error: expected"))) {
      const [, expected, answer] = text.match(/error: expected (.*)\n\S+ \S+ \S+ for \S+ (.*)\n/)!;
      expect(answer).toBe(expected);
    }
  });
});
