// What is held of a log: lines that follow each other, somewhere in it. It grows at either end as it is scrolled, and
// lets go of the other end, so a log of any length costs the same.
import { signal } from "@preact/signals";
import { type Gap, logPart, type Part, type Wish } from "../../../api/logs";
import { gapLine, joined, type Line, split } from "./lines";

export const MOST_LINES = 50_000;
const MOST_BYTES = 24 << 20;
/** Bytes of one call: some thousand lines. */
const CALL = 256 << 10;
/** Behind by more than this, it begins anew at the end, in bytes. */
const FAR = 2 << 20;

export interface View {
  readonly lines: readonly Line[];
  /** Of the first line, and behind the last one. */
  readonly from: number;
  readonly to: number;
  /** Of the whole log, as far as is known. */
  readonly size: number;
  readonly attempt: number | null;
  /** How often it began anew, elsewhere. */
  readonly times: number;
}

type Side = "before" | "after";

export class LogWindow {
  /** Null until the first bytes are there. */
  readonly view = signal<View | null>(null);
  readonly error = signal<unknown>(null);
  /** What is loaded now. */
  readonly busy = signal<Side | "all" | null>(null);
  private abort = new AbortController();
  private gap: Gap | null = null;
  /** Of the log, as far as the stream has told. */
  private told = 0;
  /** Something may have come before there was anything here, and nobody told how much. */
  private isOwed = false;
  private waiting: Promise<unknown> = Promise.resolve();

  constructor(readonly taskId: string, readonly attempt: number | null) {}

  close(): void {
    this.abort.abort();
  }

  /** Begin anew at the end. */
  async toEnd(): Promise<void> {
    await this.anew({ last: CALL });
    // What was told while that was under way.
    const { to } = this.view.peek() ?? {};
    if (to === undefined) return;
    if (this.isOwed) {
      this.isOwed = false;
      await this.grown(null, true);
    } else if (this.told > to) await this.grown(this.told, true);
  }

  /** Begin anew around a byte, with more of what comes before it than a screen holds. */
  toByte(at: number): Promise<void> {
    // In a long line some of it comes before the byte in its row, too.
    const from = Math.max(0, at - CALL / 2 - 512);
    return this.anew({ from, to: from + CALL }, at);
  }

  private async anew(wish: Wish, at = Infinity): Promise<void> {
    this.abort.abort();
    this.abort = new AbortController();
    this.waiting = Promise.resolve();
    await this.load("all", wish, (part, before) => {
      const lines = this.whole(part, at);
      const from = lines[0]?.start ?? part.from;
      return { lines, from, to: part.from + part.bytes.length, size: part.size, attempt: part.attempt, times: (before?.times ?? 0) + 1 };
    });
  }

  /** Its lines. One that began before it comes with what is before it, if anybody looks there; unless byte `at` is in it. */
  private whole(part: Part, at = Infinity): Line[] {
    const lines = split(part.bytes, part.from);
    const isCut = part.from > 0 && part.from !== this.gap?.to;
    return isCut && lines.length > 1 && at >= (lines[0] as Line).end ? lines.slice(1) : lines;
  }

  /** What comes before the first line. */
  before(): Promise<void> {
    const { from = 0 } = this.view.peek() ?? {};
    if (this.busy.peek() || from <= 0) return Promise.resolve();
    const isBehindGap = this.gap?.to === from;
    const end = isBehindGap ? (this.gap as Gap).from : from;
    const begin = Math.max(0, end - CALL, this.gap && this.gap.to < end ? this.gap.to : 0);
    return this.load("before", { from: begin, to: Math.max(begin + 1, end) }, (part, view) => {
      if (!view || view.from !== from) return view;
      const isEmpty = part.bytes.length === 0;
      const reached = isEmpty ? (this.gap?.from ?? 0) : part.from + part.bytes.length;
      const lost = reached < from ? [gapLine({ from: reached, to: from })] : [];
      const lines = isEmpty ? [] : this.whole(part);
      return bounded({ ...view, lines: joined([...lines, ...lost], view.lines), from: lines[0]?.start ?? reached }, "after");
    });
  }

  /** What comes behind the last line, up to what is known of the log. */
  after(): Promise<void> {
    const { to = 0, size = 0 } = this.view.peek() ?? {};
    return this.busy.peek() || to >= size ? Promise.resolve() : this.extend(false);
  }

  /** `keepBefore`: let go of nothing before it, since somebody reads there. */
  private extend(keepBefore: boolean): Promise<void> {
    const { to = 0 } = this.view.peek() ?? {};
    // From the last byte on that is here: where nothing has come since, that is an answer, too.
    const begin = Math.max(0, to - 1);
    return this.load("after", { from: begin, to: begin + CALL }, (whole, view) => {
      if (!view || view.to !== to) return view;
      const size = Math.max(view.size, whole.size);
      const part = whole.from < to ? { ...whole, from: to, bytes: whole.bytes.subarray(to - whole.from) } : whole;
      if (part.bytes.length === 0 || (keepBefore && isFull(view))) return { ...view, size: part.bytes.length ? size : whole.size };
      const lost = part.from > to ? [gapLine({ from: to, to: part.from })] : [];
      const lines = joined(view.lines, [...lost, ...split(part.bytes, part.from)]);
      return bounded({ ...view, lines, to: part.from + part.bytes.length, size }, keepBefore ? null : "before");
    });
  }

  /** The log has grown up to this byte, or nobody knows how far (null). Followed: its end is what is to be held. Tells how
   * many lines came. */
  async grown(size: number | null, followed: boolean): Promise<number> {
    const view = this.view.peek();
    this.told = Math.max(this.told, size ?? 0);
    if (!view) {
      if (size === null) this.isOwed = true;
      return 0;
    }
    const wasAtEnd = view.to >= view.size;
    if (size !== null && size > view.size) this.view.value = { ...view, size };
    if (followed && size !== null && size - view.to > FAR && this.busy.peek() !== "all") {
      await this.toEnd();
      return 0;
    }
    if (!followed && !wasAtEnd) return 0;
    const mine = this.abort;
    // One at a time, and each goes on where the last one has ended.
    const coming = this.waiting.then(async () => {
      let lines = 0;
      for (let isFirst = size === null; !mine.signal.aborted; isFirst = false) {
        const before = this.view.peek() as View;
        if (before.to >= before.size && !isFirst) break;
        await this.extend(!followed);
        const after = this.view.peek() as View;
        if (after.to === before.to || after.times !== before.times) break;
        lines += after.lines.length - before.lines.length;
        // As was not told before.
        if (followed && after.size - after.to > FAR) {
          await this.toEnd();
          break;
        }
      }
      return lines;
    });
    this.waiting = coming;
    return coming;
  }

  private async load(what: Side | "all", wish: Wish, change: (part: Part, view: View | null) => View | null): Promise<void> {
    const mine = this.abort;
    this.busy.value = what;
    try {
      const part = await logPart(this.taskId, this.attempt, wish, mine.signal);
      if (mine.signal.aborted) return;
      if (part.gap) this.gap = part.gap;
      this.error.value = null;
      this.view.value = change(part, this.view.peek());
    } catch (error) {
      if (!mine.signal.aborted) this.error.value = error;
    } finally {
      if (this.abort === mine) this.busy.value = null;
    }
  }
}

const isFull = (view: View): boolean => view.lines.length >= MOST_LINES || view.to - view.from >= MOST_BYTES;

/** Without so many lines of one end that the rest is within the bounds. */
function bounded(view: View, side: Side | null): View {
  const { lines } = view;
  let [first, last] = [0, lines.length];
  const size = (): number => (lines[last - 1]?.end ?? 0) - (lines[first]?.start ?? 0);
  const isOver = (): boolean => (last - first > MOST_LINES || size() > MOST_BYTES) && last - first > 1;
  if (side === null || !isOver()) return view;
  while (isOver()) {
    if (side === "before") first += 1;
    else last -= 1;
  }
  const kept = lines.slice(first, last);
  return { ...view, lines: kept, from: kept[0]?.start ?? view.from, to: kept.at(-1)?.end ?? view.to };
}
