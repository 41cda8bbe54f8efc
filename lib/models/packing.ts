import { SdpoError, show } from "../errors.js";

/**
 * Sequences packed as a prefix tree: tokens that sequences share are stored, and computed, once.
 * A segment is a run of tokens with an optional parent, whose tokens (and its parents') it also sees.
 */
export interface PackedSequences {
  /** Distinct tokens in segment order, int32 [T]. */
  ids: Int32Array;
  /** The position of each token in its sequence, int32 [T]. */
  positions: Int32Array;
  /** (start, length, parent or -1, first position) of each segment, int32 [S, 4]. */
  segments: Int32Array;
  /** For each sequence the packed row of each of its tokens. */
  rows: Int32Array[];
  /** Tokens of all sequences, shared ones counted each time. */
  totalTokens: number;
}

/** Shared runs shorter than this are not worth a segment of their own. */
const SHORTEST_SHARED_RUN = 8;

interface Pending {
  members: number[];
  offset: number;
  parent: number;
}

function commonLength(sequences: readonly Int32Array[], members: readonly number[], offset: number): number {
  const first = sequences[members[0]!]!;
  let end = first.length;
  for (const member of members) {
    const other = sequences[member]!;
    end = Math.min(end, other.length);
    let at = offset;
    while (at < end && other[at] === first[at]) at++;
    end = at;
  }
  return end - offset;
}

/** What sequences that share a run have in common here; undefined where too few tokens are left. */
function runKey(sequence: Int32Array, offset: number): string | undefined {
  if (sequence.length - offset < SHORTEST_SHARED_RUN) return undefined;
  return sequence.subarray(offset, offset + SHORTEST_SHARED_RUN).join(",");
}

/** Groups members by their next tokens; those with fewer tokens left than a shared run stand alone. */
function families(sequences: readonly Int32Array[], members: readonly number[], offset: number): number[][] {
  const groups = new Map<string, number[]>();
  for (const member of members) {
    const key = runKey(sequences[member]!, offset) ?? `alone ${member}`;
    const group = groups.get(key);
    if (group) group.push(member);
    else groups.set(key, [member]);
  }
  return [...groups.values()];
}

/**
 * Packs sequences of token ids. With `share` (the default) common prefixes become segments that several
 * sequences hang from; results are those of the separate sequences within rounding. Throws ERR_SDPO_ARGUMENT.
 */
export function packSequences(sequences: readonly Int32Array[], share = true): PackedSequences {
  if (!Array.isArray(sequences) || !sequences.every((sequence) => sequence instanceof Int32Array)) {
    const problem = `sequences: expected a list of Int32Array, got ${show(sequences)}`;
    throw new SdpoError("ERR_SDPO_ARGUMENT", problem);
  }
  const ids: number[] = [];
  const positions: number[] = [];
  const segments: number[] = [];
  const rows = sequences.map((sequence) => new Int32Array(sequence.length));
  const everyone = sequences.map((_, i) => i).filter((i) => sequences[i]!.length > 0);
  const split = (members: number[], offset: number, parent: number): Pending[] =>
    (share ? families(sequences, members, offset) : members.map((m) => [m])).map((group) => ({
      members: group,
      offset,
      parent,
    }));
  const pending = split(everyone, 0, -1).reverse();
  for (let next = pending.pop(); next; next = pending.pop()) {
    const { members, offset, parent } = next;
    const length = commonLength(sequences, members, offset);
    const start = ids.length;
    const source = sequences[members[0]!]!;
    for (let i = offset; i < offset + length; i++) {
      ids.push(source[i]!);
      positions.push(i);
    }
    for (const member of members) for (let i = 0; i < length; i++) rows[member]![offset + i] = start + i;
    segments.push(start, length, parent, offset);
    const longer = members.filter((member) => sequences[member]!.length > offset + length);
    if (longer.length > 0) pending.push(...split(longer, offset + length, segments.length / 4 - 1).reverse());
  }
  return {
    ids: Int32Array.from(ids),
    positions: Int32Array.from(positions),
    segments: Int32Array.from(segments),
    rows,
    totalTokens: sequences.reduce((sum, sequence) => sum + sequence.length, 0),
  };
}

/** Sequences with a run in common, and what becomes of them after it. */
interface Family {
  members: Int32Array[];
  /** Of the run that all members share. */
  length: number;
  /** Families after the run, by their keys. */
  next: Map<string, Family>;
  /** Packed tokens of all of this. */
  tokens: number;
}

/** Counts the tokens that {@link packSequences} packs, while sequences come one by one. */
export class PackedTokenCounter {
  tokens = 0;
  readonly #families = new Map<string, Family>();

  add(sequence: Int32Array): void {
    this.tokens += addToFamilies(this.#families, sequence, 0);
  }
}

/** Adds a sequence's tokens from `offset`; gives by how many the packed tokens grew. */
function addToFamilies(all: Map<string, Family>, sequence: Int32Array, offset: number): number {
  const length = sequence.length - offset;
  const key = runKey(sequence, offset);
  if (key === undefined) return length;
  const family = all.get(key);
  if (!family) {
    all.set(key, { members: [sequence], length, next: new Map(), tokens: length });
    return length;
  }
  const before = family.tokens;
  family.members.push(sequence);
  const run = family.members[0]!.subarray(0, offset + family.length);
  const shared = commonLength([run, sequence], [0, 1], offset);
  if (shared === family.length) {
    family.tokens += addToFamilies(family.next, sequence, offset + shared);
  } else {
    // What follows a shorter run is split at another place, so it is counted anew.
    Object.assign(family, { length: shared, next: new Map(), tokens: shared });
    for (const member of family.members) family.tokens += addToFamilies(family.next, member, offset + shared);
  }
  return family.tokens - before;
}
