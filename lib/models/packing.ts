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

/** Groups members by their next tokens; those with fewer tokens left than a shared run stand alone. */
function families(sequences: readonly Int32Array[], members: readonly number[], offset: number): number[][] {
  const groups = new Map<string, number[]>();
  for (const member of members) {
    const left = sequences[member]!.subarray(offset, offset + SHORTEST_SHARED_RUN);
    const key = left.length < SHORTEST_SHARED_RUN ? `alone ${member}` : left.join(",");
    const group = groups.get(key);
    if (group) group.push(member);
    else groups.set(key, [member]);
  }
  return [...groups.values()];
}

/**
 * Packs sequences of token ids. With `share` (the default) common prefixes become segments that several
 * sequences hang from; results are those of the separate sequences within rounding.
 */
export function packSequences(sequences: readonly Int32Array[], share = true): PackedSequences {
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
