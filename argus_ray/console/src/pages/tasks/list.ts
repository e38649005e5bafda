// One list of tasks: pages as they are scrolled to, and what the stream tells, put into its place.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { breaks, link } from "../../api/stream";
import { type Filter, listTasks, matches, onTask, taskSignal, type TaskSummary } from "../../api/tasks";
import { serverNow } from "../../lib/format";

/** Changes that are kept while the first page is under way. */
const MOST_EARLY = 1000;

export interface TaskList {
  /** Ids, newest first; null until the first page is there. */
  readonly rows: readonly string[] | null;
  readonly hasMore: boolean;
  readonly error: unknown;
  more(): void;
  reload(): void;
}

interface Held {
  rows: string[] | null;
  cursor: string | null;
  error: unknown;
}

const UNITS_MS: Readonly<Record<string, number>> = { m: 60e3, h: 3600e3, d: 86400e3, w: 7 * 86400e3 };

/** The moment that `since` means, an age or a time, in milliseconds. */
function beginOf(since: string | null): number {
  if (since === null) return -Infinity;
  const [, many, unit = ""] = /^(\d+)([mhdw])$/.exec(since) ?? [];
  const at = many ? serverNow() - Number(many) * (UNITS_MS[unit] ?? 0) : Date.parse(since);
  return Number.isNaN(at) ? -Infinity : at;
}

class Loader {
  private readonly abort = new AbortController();
  private held: Held = { rows: null, cursor: null, error: null };
  private has = new Set<string>();
  private at = new Map<string, number>();
  private busy = false;
  private early: TaskSummary[] = [];
  /** Milliseconds; an older task is in no page of it, whatever it does now. */
  private readonly since: number;

  constructor(private readonly filter: Filter, private readonly show: (held: Held) => void) {
    this.since = beginOf(filter.since);
  }

  close(): void {
    this.abort.abort();
  }

  async first(): Promise<void> {
    await this.load(null);
  }

  async next(): Promise<void> {
    if (!this.busy && this.held.cursor) await this.load(this.held.cursor);
  }

  private async load(cursor: string | null): Promise<void> {
    this.busy = true;
    try {
      const page = await listTasks(this.filter, cursor, this.abort.signal);
      // From the beginning what is there stays, so that nobody's place in it is lost.
      const old = cursor === null ? [] : (this.held.rows ?? []);
      if (cursor === null) this.has = new Set();
      const fresh = page.tasks.filter((task) => !this.has.has(task.task_id));
      fresh.forEach((task) => this.add(task));
      this.set({ rows: [...old, ...fresh.map((task) => task.task_id)], cursor: page.next_cursor, error: null });
      this.early.splice(0).forEach((task) => this.told(task));
    } catch (error) {
      if (!this.abort.signal.aborted) this.set({ ...this.held, error });
    } finally {
      this.busy = false;
    }
  }

  private add(task: TaskSummary): void {
    this.has.add(task.task_id);
    this.at.set(task.task_id, Date.parse(task.created_at));
  }

  told(task: TaskSummary): void {
    const { rows } = this.held;
    if (!rows) {
      // The first page is under way, and may be older.
      if (this.early.length < MOST_EARLY) this.early.push(task);
      return;
    }
    const fits = matches(this.filter, task) && Date.parse(task.created_at) >= this.since;
    if (this.has.has(task.task_id)) {
      if (fits) return;
      this.has.delete(task.task_id);
      this.set({ ...this.held, rows: rows.filter((id) => id !== task.task_id) });
    } else if (fits) {
      const created = Date.parse(task.created_at);
      const found = rows.findIndex((id) => (this.at.get(id) ?? 0) <= created);
      // Behind all that is loaded: it comes with its page.
      if (found < 0 && this.held.cursor) return;
      this.add(task);
      taskSignal(task.task_id).value = task;
      const place = found < 0 ? rows.length : found;
      this.set({ ...this.held, rows: [...rows.slice(0, place), task.task_id, ...rows.slice(place)] });
    }
  }

  private set(held: Held): void {
    this.held = held;
    if (!this.abort.signal.aborted) this.show(held);
  }
}

export function useTaskList(filter: Filter): TaskList {
  const [held, setHeld] = useState<Held>({ rows: null, cursor: null, error: null });
  const [times, again] = useState(0);
  const key = JSON.stringify(filter);
  const loader = useMemo(() => new Loader(filter, setHeld), [key, times]);
  useEffect(() => {
    void loader.first();
    const stop = onTask((task) => loader.told(task));
    return () => {
      stop();
      loader.close();
    };
  }, [loader]);
  // After a break that was too long for the stream to tell all.
  const state = link.value;
  useEffect(() => {
    if (state === "live" && held.error) again((count) => count + 1);
  }, [state]);
  const seen = useRef(breaks.peek());
  const broken = breaks.value;
  useEffect(() => {
    if (broken !== seen.current) again((count) => count + 1);
    seen.current = broken;
  }, [broken]);
  return {
    rows: held.rows,
    hasMore: held.cursor !== null,
    error: held.error,
    more: () => void loader.next(),
    reload: () => again((count) => count + 1),
  };
}
