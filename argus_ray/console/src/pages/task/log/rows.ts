// What is drawn of lines: a row each, but of a progress bar only what it was at last, and of a very long line the
// beginning, with the rest in pieces for who asks for it.
import { type Line, lineAt } from "./lines";

/** Bytes of one row: the browser lays it out at once. */
export const PIECE = 4096;
/** How many more of these are shown at a time. */
const PIECES = 16;

export type Row = { readonly key: string; readonly line: Line } & (
  | { readonly kind: "text"; readonly from: number; readonly to: number; readonly hidden: number }
  | { readonly kind: "more"; readonly left: number }
  | { readonly kind: "gap" }
);

export interface Shown {
  /** By a byte of a line: up to which one the line is shown, if more than a piece of it. Both are places in the log: what
   * the line begins with may come later. */
  readonly opened: ReadonlyMap<number, number>;
  /** Every state of a progress bar. */
  readonly states: boolean;
  /** A byte whose line shows up to there, whatever else holds: the match of a search. */
  readonly keep: number | null;
}

export function rowsOf(lines: readonly Line[], shown: Shown): Row[] {
  const rows: Row[] = [];
  const kept = shown.keep === null ? null : lines[lineAt(lines, shown.keep)];
  const opened = new Map<Line, number>();
  for (const [at, upTo] of shown.opened) {
    const line = lines[lineAt(lines, at)];
    if (line && line.start <= at && at < line.end) opened.set(line, Math.max(upTo, opened.get(line) ?? 0));
  }
  let hidden = 0;
  for (const [index, line] of lines.entries()) {
    if (line.gap) {
      rows.push({ key: `g${line.start}`, kind: "gap", line });
      continue;
    }
    const next = lines[index + 1];
    if (!shown.states && line.ends === "\r" && next && !next.gap && line !== kept) {
      hidden += 1;
      continue;
    }
    const upTo = line === kept && shown.keep !== null ? shown.keep - line.start + PIECE : 0;
    const open = Math.min(line.bytes.length, Math.max(PIECE, (opened.get(line) ?? 0) - line.start, upTo));
    let from = 0;
    do {
      const to = cut(line.bytes, Math.min(open, from + PIECE));
      rows.push({ key: `${line.start + from}`, kind: "text", line, from, to, hidden });
      hidden = 0;
      from = to;
    } while (from < open && from < cut(line.bytes, open));
    if (from < line.bytes.length) rows.push({ key: `m${line.start}`, kind: "more", line, left: line.bytes.length - from });
  }
  return rows;
}

/** Not within a character: some bytes before, if need be. */
function cut(bytes: Uint8Array, at: number): number {
  let to = at;
  while (to < bytes.length && to > at - 4 && ((bytes[to] as number) & 0xc0) === 0x80) to -= 1;
  return to <= 0 ? at : to;
}

/** With more of a line of which `shown` bytes are shown. */
export function openedMore(opened: ReadonlyMap<number, number>, line: Line, shown: number): ReadonlyMap<number, number> {
  return new Map(opened).set(line.start, line.start + (Math.ceil(shown / PIECE) + PIECES) * PIECE);
}

/** The row that shows byte `at` of the log. */
export function rowAt(rows: readonly Row[], at: number): number {
  let [low, high] = [0, rows.length - 1];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    const row = rows[middle] as Row;
    if (row.line.start + (row.kind === "text" ? row.from : 0) <= at) low = middle;
    else high = middle - 1;
  }
  return Math.max(0, low);
}
