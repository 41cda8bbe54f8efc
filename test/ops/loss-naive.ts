/** The SDPO token loss in float64, straight from its definition; the oracle of the property tests. */

export interface NaiveOptions {
  credit: "logit" | "token";
  alpha: number;
  topK: number | null;
  tail: boolean;
  isClip: number | null;
  advantageClip: number | null;
  teacherRate: number | null;
  temperature: number;
}

export interface NaiveRow {
  student: Float64Array;
  teacher: Float64Array;
  initial: Float64Array | undefined;
  token: number;
  weight: number;
  old: number | undefined;
}

const FLOOR = -Math.expm1(-1e-7);

export function logSoftmax(z: Float64Array, temperature: number): Float64Array {
  const x = z.map((v) => v / temperature);
  const max = x.reduce((a, b) => Math.max(a, b), -Infinity);
  const lse = max + Math.log(x.reduce((sum, v) => sum + Math.exp(v - max), 0));
  return x.map((v) => v - lse);
}

/** 0 log 0 = 0. */
const times = (mass: number, value: number) => (mass === 0 ? 0 : mass * value);

/** Ids of the k largest, ties to the lower id. */
export function largest(z: Float64Array, k: number): number[] {
  const ids = Array.from(z, (_, i) => i);
  return ids.sort((a, b) => (z[b]! > z[a]! ? 1 : z[b]! < z[a]! ? -1 : a - b)).slice(0, k);
}

/** Log masses of the buckets: those of the ids and, with a tail, of the rest. */
function buckets(logprobs: Float64Array, ids: number[], tail: boolean): Float64Array {
  const top = ids.map((id) => logprobs[id]!);
  if (!tail) return logSoftmax(Float64Array.from(top), 1);
  const inside = new Set(ids);
  const rest = logprobs.reduce((sum, l, id) => (inside.has(id) ? sum : sum + Math.exp(l)), 0);
  return Float64Array.from([...top, Math.log(Math.max(rest, FLOOR))]);
}

function divergence(p: Float64Array, t: Float64Array, o: NaiveOptions): number {
  let loss = 0;
  p.forEach((lp, b) => {
    const lt = t[b]!;
    const [P, T] = [Math.exp(lp), Math.exp(lt)];
    if (o.advantageClip !== null)
      loss += times(P, Math.min(Math.max(lp - lt, -o.advantageClip), o.advantageClip));
    else if (o.alpha === 0) loss += times(T, lt - lp);
    else if (o.alpha === 1) loss += times(P, lp - lt);
    else {
      const lm = Math.log((1 - o.alpha) * P + o.alpha * T);
      loss += (1 - o.alpha) * times(P, lp - lm) + o.alpha * times(T, lt - lm);
    }
  });
  return loss;
}

export function naiveRow(row: NaiveRow, o: NaiveOptions) {
  const p = logSoftmax(row.student, o.temperature);
  const t = logSoftmaxOfTeacher(row, o);
  const [lp, lt] = [p[row.token]!, t[row.token]!];
  const ratio = row.old === undefined ? 1 : Math.exp(Math.min(Math.max(lp - row.old, -20), 20));
  const ids = o.topK === null ? undefined : largest(row.student, Math.min(o.topK, p.length));
  let raw: number;
  if (o.credit === "token") {
    const clip = o.advantageClip ?? Infinity;
    raw = Math.min(Math.max(lp - lt, -clip), clip) * lp;
  } else if (ids) raw = divergence(buckets(p, ids, o.tail), buckets(t, ids, o.tail), o);
  else raw = divergence(p, t, o);
  const factor = row.weight * (o.isClip === null ? 1 : Math.min(ratio, o.isClip));
  const mass = (l: Float64Array) => (ids ? ids.reduce((sum, id) => sum + Math.exp(l[id]!), 0) : 1);
  return {
    tokenLoss: row.weight === 0 ? 0 : factor * raw,
    studentLogprobs: lp,
    teacherLogprobs: lt,
    entropy: -p.reduce((sum, l) => sum + times(Math.exp(l), l), 0),
    ratio,
    studentTopkMass: o.credit === "token" ? 1 : mass(p),
    teacherTopkMass: o.credit === "token" ? 1 : mass(t),
  };
}

/**
 * d tokenLoss / d student by central differences, with weight, ratio and advantages held where they are.
 */
export function naiveGradient(row: NaiveRow, o: NaiveOptions): number[] {
  if (row.weight === 0) return Array.from(row.student, () => 0);
  const at = naiveRow(row, o);
  const p = logSoftmax(row.student, o.temperature);
  const held = row.weight * (o.isClip === null ? 1 : Math.min(at.ratio, o.isClip));
  const ids = o.topK === null ? p.map((_, i) => i) : largest(row.student, Math.min(o.topK, p.length));
  const t = logSoftmaxOfTeacher(row, o);
  const kept = o.credit === "logit" && o.topK !== null;
  const P0 = kept ? buckets(p, [...ids], o.tail) : p;
  const T = kept ? buckets(t, [...ids], o.tail) : t;
  const advantage = at.tokenLoss / held / at.studentLogprobs;
  const value = (z: Float64Array) => {
    const q = logSoftmax(z, o.temperature);
    if (o.credit === "token") return advantage * q[row.token]!;
    const P = kept ? buckets(q, [...ids], o.tail) : q;
    if (o.advantageClip === null) return divergence(P, T, o);
    const clip = o.advantageClip;
    return P.reduce(
      (sum, l, b) => sum + times(Math.exp(l), Math.min(Math.max(P0[b]! - T[b]!, -clip), clip)),
      0,
    );
  };
  return Array.from(row.student, (_, v) => {
    if (!Number.isFinite(row.student[v]!)) return 0;
    const h = 1e-5;
    const up = row.student.slice();
    const down = row.student.slice();
    up[v]! += h;
    down[v]! -= h;
    return (held * (value(up) - value(down))) / (2 * h);
  });
}

function logSoftmaxOfTeacher(row: NaiveRow, o: NaiveOptions): Float64Array {
  const rate = o.teacherRate;
  if (rate === null || !row.initial) return logSoftmax(row.teacher, o.temperature);
  const first = row.initial;
  const mixed = row.teacher.map(
    (z, i) => (rate === 0 ? 0 : rate * z) + (rate === 1 ? 0 : (1 - rate) * first[i]!),
  );
  return logSoftmax(mixed, o.temperature);
}
