// The rows of a log, as they are scrolled: earlier bytes come as its top nears, later ones as its end does; what is read
// stays where it is, and who is at the end stays there while the log grows.
import type { RefObject } from "preact";
import { useEffect, useImperativeHandle, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { bytes, count } from "../../../lib/format";
import { openedMore, type Row, rowAt, rowsOf } from "./rows";
import { type Mark, RowText } from "./text";
import { useLogRows } from "./virtual";
import type { LogWindow, View } from "./window";

/** Pixels: of a row that is not wrapped, as task.css has it. */
const ROW = 18;
/** So near an end of what is held, in pixels, more of it is asked for. */
const NEAR = 60 * ROW;

export interface Look {
  readonly wrap: boolean;
  readonly states: boolean;
  readonly raw: boolean;
}

export interface Pane {
  /** Show this byte, in the middle. */
  show(at: number): void;
  /** The first byte in sight. */
  first(): number;
  focus(): void;
}

interface Props {
  log: LogWindow;
  view: View;
  look: Look;
  mark: Mark | null;
  follows: boolean;
  setFollows: (follows: boolean) => void;
  keys: (event: KeyboardEvent) => void;
  pane: RefObject<Pane>;
}

export function LogPane({ log, view, look, mark, follows, setFollows, keys, pane }: Props) {
  const scroller = useRef<HTMLDivElement>(null);
  const [opened, setOpened] = useState<ReadonlyMap<number, number>>(new Map());
  const rows = useMemo(() => rowsOf(view.lines, { opened, states: look.states, keep: mark?.from ?? null }), [view.lines, opened, look.states, mark?.from]);
  const virtual = useLogRows(scroller, rows, ROW, look.wrap);
  const items = virtual.getVirtualItems();
  /** What is at the top: a byte of the log, and how many pixels of its row are above it. */
  const anchor = useRef<{ at: number; over: number } | null>(null);
  const wanted = useRef<number | null>(null);
  const seenTop = useRef(0);
  /** Bring the mark into sight sideways, too, once its row is drawn. */
  const seeks = useRef(false);

  function byteOf(index: number): number {
    const row = rows[index];
    return row ? row.line.start + (row.kind === "text" ? row.from : row.kind === "more" ? row.line.bytes.length : 0) : view.from;
  }

  function remember(): void {
    const top = scroller.current?.scrollTop ?? 0;
    const item = virtual.getVirtualItemForOffset(top);
    anchor.current = item ? { at: byteOf(item.index), over: top - item.start } : null;
    seenTop.current = top;
  }

  /** Somebody has scrolled upwards, and the event that tells of it is still to come. */
  function isLeaving(element: HTMLElement): boolean {
    const top = element.scrollTop;
    return top < seenTop.current - 1 && element.scrollHeight - element.clientHeight - top > 2;
  }

  // Other rows, the same place: what is read does not move.
  useLayoutEffect(() => {
    const element = scroller.current;
    if (!element || !rows.length) return;
    if (wanted.current !== null) {
      const index = rowAt(rows, wanted.current);
      wanted.current = null;
      const [offset] = virtual.getOffsetForIndex(index, "center") ?? [0];
      element.scrollTop = offset;
    } else if (follows) {
      if (isLeaving(element)) return;
      element.scrollTop = element.scrollHeight;
    } else if (anchor.current) {
      const item = virtual.measurementsCache[rowAt(rows, anchor.current.at)];
      if (item) element.scrollTop = item.start + anchor.current.over;
    }
    remember();
  }, [rows, look.wrap]);

  useLayoutEffect(() => {
    const element = scroller.current;
    const found = seeks.current ? element?.querySelector("mark") : null;
    if (found) {
      seeks.current = false;
      found.scrollIntoView({ block: "nearest", inline: "center" });
    }
    if (follows && element && wanted.current === null && !isLeaving(element)) {
      element.scrollTop = element.scrollHeight;
      seenTop.current = element.scrollTop;
    }
  });

  // It began anew: nothing of the old place is left, and a screen is to be full.
  useEffect(() => {
    anchor.current = null;
  }, [view.times]);
  const isShort = virtual.getTotalSize() < (scroller.current?.clientHeight ?? 0);
  // Not while something else is loaded, which would turn it away; then once that is there.
  const isFree = log.busy.value === null && log.error.value === null;
  useEffect(() => {
    if (isFree && isShort && view.from > 0 && view.to - view.from < 2 << 20) void log.before();
  }, [isFree, isShort, view.from, log]);

  /** An end that was come to while something else was loaded: no scrolling tells of it again. */
  const owed = useRef<"before" | "after" | null>(null);
  function more(side: "before" | "after"): void {
    owed.current = log.busy.peek() === null ? null : side;
    void log[side]();
  }
  const isBusy = log.busy.value !== null;
  useEffect(() => {
    const side = owed.current;
    const element = scroller.current;
    if (isBusy || !side || !element) return;
    owed.current = null;
    const left = side === "before" ? element.scrollTop : element.scrollHeight - element.clientHeight - element.scrollTop;
    if (left < NEAR) more(side);
  }, [isBusy]);

  function scrolled(): void {
    const element = scroller.current as HTMLDivElement;
    const top = element.scrollTop;
    const isUp = top < seenTop.current - 1;
    const below = element.scrollHeight - element.clientHeight - top;
    if (below <= 2 && view.to >= view.size) setFollows(true);
    else if (follows && isLeaving(element)) setFollows(false);
    if (isUp && top < NEAR) more("before");
    if (!isUp && below < NEAR) more("after");
    remember();
  }

  useImperativeHandle(pane, () => ({
    show: (at) => {
      wanted.current = at;
      seeks.current = true;
      // The same, as a new map: it makes the rows anew, and those are brought to their place.
      setOpened(new Map(opened));
    },
    first: () => anchor.current?.at ?? view.from,
    focus: () => scroller.current?.focus(),
  }));

  return (
    <div ref={scroller} class="log-rows" data-wrap={look.wrap || undefined} role="region" aria-label="Log" tabIndex={0} onScroll={scrolled} onKeyDown={keys}>
      <div class="log-all" style={{ height: `${virtual.getTotalSize()}px` }}>
        {items.map((item) => {
          const row = rows[item.index];
          return row ? (
            <div key={item.key} data-index={item.index} ref={look.wrap ? virtual.measureElement : null} class="log-row" data-kind={row.kind} style={{ transform: `translateY(${item.start}px)` }}>
              <RowOf row={row} mark={mark} look={look} open={() => { if (row.kind === "more") setOpened(openedMore(opened, row.line, row.line.bytes.length - row.left)); }} />
            </div>
          ) : null;
        })}
      </div>
    </div>
  );
}

function RowOf({ row, mark, look, open }: { row: Row; mark: Mark | null; look: Look; open: () => void }) {
  if (row.kind === "gap") {
    return <span class="log-note">{bytes(row.line.end - row.line.start)} of the log were not kept here: it has reached its bound.</span>;
  }
  if (row.kind === "more") {
    return <button class="button small" type="button" onClick={open}>{bytes(row.left)} more of this line: show more</button>;
  }
  return (
    <>
      {row.from > 0 ? <span class="log-sign" title="The same line goes on">↪ </span> : null}
      {row.hidden ? <span class="log-sign" title={`${count(row.hidden, "state")} of a progress bar before this one`}>↻ </span> : null}
      <bdi dir="ltr"><RowText row={row} mark={mark} raw={look.raw} /></bdi>
    </>
  );
}
