// Bytes of a log as lines. What is kept is bytes: a line becomes text only while it is in sight.
import type { Gap } from "../../../api/logs";

/** Bytes of one line at most; what goes on behind that counts as the next one. */
export const LONGEST_LINE = 4 << 20;

const NEWLINE = 10;
const RETURN = 13;

export interface Line {
  /** Of its first byte, in the log. */
  readonly start: number;
  /** Behind its last byte, that which ends it included. */
  readonly end: number;
  /** Without that which ends it. */
  readonly bytes: Uint8Array;
  /** `\r` alone: the next line is written over it, as a progress bar is. None: it goes on. */
  readonly ends: "" | "\n" | "\r" | "\r\n";
  /** In its place the log has lost bytes. */
  readonly gap?: Gap;
}

export function gapLine(gap: Gap): Line {
  return { start: gap.from, end: gap.to, bytes: new Uint8Array(0), ends: "\n", gap };
}

/** Lines of the bytes from `from` on; the last one may go on. */
export function split(bytes: Uint8Array, from: number): Line[] {
  const lines: Line[] = [];
  let start = 0;
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at];
    if (byte !== NEWLINE && byte !== RETURN && at - start < LONGEST_LINE) continue;
    const isEnd = byte === NEWLINE || byte === RETURN;
    const isBoth = byte === RETURN && bytes[at + 1] === NEWLINE;
    const next = at + (isBoth ? 2 : isEnd ? 1 : 0);
    lines.push({ start: from + start, end: from + next, bytes: bytes.subarray(start, at), ends: isBoth ? "\r\n" : byte === RETURN ? "\r" : "\n" });
    start = next;
    at = next - 1;
  }
  if (start < bytes.length) lines.push({ start: from + start, end: from + bytes.length, bytes: bytes.subarray(start), ends: "" });
  return lines;
}

/** Lines of two pieces of a log that touch: what the one ends and the other begins with is one line. */
export function joined(before: readonly Line[], after: readonly Line[]): Line[] {
  const last = before.at(-1);
  const first = after[0];
  if (!last || !first || last.gap || first.gap || last.end !== first.start) return [...before, ...after];
  if (last.ends === "\r" && first.ends === "\n" && first.bytes.length === 0) {
    return [...before.slice(0, -1), { ...last, end: first.end, ends: "\r\n" }, ...after.slice(1)];
  }
  if (last.ends !== "" || last.bytes.length + first.bytes.length > LONGEST_LINE) return [...before, ...after];
  const bytes = new Uint8Array(last.bytes.length + first.bytes.length);
  bytes.set(last.bytes);
  bytes.set(first.bytes, last.bytes.length);
  return [...before.slice(0, -1), { start: last.start, end: first.end, bytes, ends: first.ends }, ...after.slice(1)];
}

/** The index of the line that byte `at` belongs to; the nearest one where none does. */
export function lineAt(lines: readonly Line[], at: number): number {
  let [low, high] = [0, lines.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((lines[middle] as Line).end <= at) low = middle + 1;
    else high = middle;
  }
  return Math.max(0, low);
}
