// A search in the whole log, on the server; the window moves to what is found.
import type { RefObject } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { words } from "../../../api/client";
import { type Match, search, type Sought } from "../../../api/logs";
import { bytes } from "../../../lib/format";
import type { Pane } from "./pane";
import type { Mark } from "./text";
import type { LogWindow } from "./window";

export interface Searching {
  readonly what: Sought;
  set(change: Partial<Sought>): void;
  /** The next match, or the one before: from the last one, or from what is in sight. */
  next(backward: boolean): void;
  clear(): void;
  stop(): void;
  readonly mark: Mark | null;
  readonly busy: boolean;
  readonly says: string;
  readonly isWrong: boolean;
}

export function useSearch(log: LogWindow, pane: RefObject<Pane>, moves: () => void): Searching {
  const [what, setWhat] = useState<Sought>({ text: "", regex: false, anyCase: true });
  const [mark, setMark] = useState<Mark | null>(null);
  const [busy, setBusy] = useState(false);
  const [says, setSays] = useState("");
  const [isWrong, setWrong] = useState(false);
  const running = useRef<AbortController | null>(null);
  useEffect(() => () => running.current?.abort(), []);

  async function look(backward: boolean): Promise<void> {
    if (!what.text) return;
    running.current?.abort();
    const mine = (running.current = new AbortController());
    const from = mark ? (backward ? mark.from : mark.to) : backward ? null : (pane.current?.first() ?? 0);
    const tell = (at: number, size: number): void => setSays(`searching… at ${bytes(at)} of ${bytes(size)}`);
    const seek = (place: number | null): Promise<Match | null> => search(log.taskId, log.attempt, what, place, backward, mine.signal, tell);
    setBusy(true);
    setWrong(false);
    setSays("searching…");
    try {
      const isAll = backward ? from === null : from === 0;
      const first = await seek(from);
      const match = first ?? (isAll ? null : await seek(backward ? null : 0));
      if (mine.signal.aborted) return;
      if (!match) {
        setSays("not found");
        return;
      }
      const view = log.view.peek();
      const round = first ? "" : backward ? ", from the end again" : ", from the beginning again";
      setSays(view ? `at byte ${match.offset.toLocaleString("en")} of ${view.size.toLocaleString("en")}${round}` : "");
      moves();
      setMark({ from: match.offset, to: match.offset + match.length });
      if (!view || match.offset < view.from || match.offset >= view.to) await log.toByte(match.offset);
      if (!mine.signal.aborted) pane.current?.show(match.offset);
    } catch (error) {
      if (mine.signal.aborted) return;
      setSays(words(error));
      setWrong(true);
    } finally {
      if (running.current === mine) setBusy(false);
    }
  }

  return {
    what,
    set: (change) => {
      setSays("");
      setWrong(false);
      setMark(null);
      setWhat({ ...what, ...change });
    },
    next: (backward) => void look(backward),
    clear: () => setMark(null),
    stop: () => {
      running.current?.abort();
      setBusy(false);
      setSays("");
    },
    mark,
    busy,
    says,
    isWrong,
  };
}
