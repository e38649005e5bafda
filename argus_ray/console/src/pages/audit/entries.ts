// The entries of one filter: pages to the past, and, while it is wanted, what comes.
import { useEffect, useMemo, useState } from "preact/hooks";
import { type AuditFilter, type Entry, followAudit, listAudit } from "../../api/audit";
import { token } from "../../api/session";

/** Of a long day with the switch on: the oldest go, and come back as they are scrolled to. Their addresses go with them. */
const MOST_HELD = 2_000;
/** Entries that come within so many milliseconds are shown together. */
const GATHER_MS = 50;

export interface Entries {
  /** Newest first; null until the first page is there. */
  readonly rows: readonly Entry[] | null;
  readonly hasMore: boolean;
  readonly error: unknown;
  readonly isLoading: boolean;
  readonly live: "off" | "live" | "reconnecting";
  /** Numbers of entries that retention took before they were told. */
  readonly gap: readonly [number, number] | null;
  /** What came while it was looked at. */
  readonly fresh: ReadonlySet<number>;
  more(): void;
  reload(): void;
}

interface Held {
  rows: readonly Entry[] | null;
  cursor: string | null;
  /** Where the oldest went: an RFC 3339 time up to which they come back. The cursor is further back, and of no use then. */
  until: string | null;
  error: unknown;
  isLoading: boolean;
  gap: readonly [number, number] | null;
  fresh: ReadonlySet<number>;
}

const NOTHING: Held = { rows: null, cursor: null, until: null, error: null, isLoading: true, gap: null, fresh: new Set() };

export function useEntries(filter: AuditFilter, wantsLive: boolean): Entries {
  const [held, setHeld] = useState<Held>(NOTHING);
  const [times, again] = useState(0);
  const [live, setLive] = useState<Entries["live"]>("off");
  const isIn = token.value !== null;
  const isVisible = useVisible();
  const key = JSON.stringify(filter);
  const abort = useMemo(() => new AbortController(), [key, times]);

  useEffect(() => {
    setHeld((before) => (before.rows && times ? { ...before, until: null, isLoading: true } : NOTHING));
    void load(null, null);
    return () => abort.abort();
  }, [abort]);

  async function load(cursor: string | null, until: string | null): Promise<void> {
    setHeld((before) => ({ ...before, isLoading: true, error: null }));
    try {
      const page = await listAudit(filter, cursor, until, abort.signal);
      if (abort.signal.aborted) return;
      setHeld((before) => {
        // Cut meanwhile, it is asked for anew from there.
        if (before.until !== until) return { ...before, isLoading: false };
        const isFirst = cursor === null && until === null;
        return { ...before, rows: joined(isFirst ? [] : (before.rows ?? []), page.entries), cursor: page.next_cursor, until: null, isLoading: false };
      });
    } catch (error) {
      if (!abort.signal.aborted) setHeld((before) => ({ ...before, error, isLoading: false }));
    }
  }

  const isThere = held.rows !== null;
  const newest = held.rows?.[0]?.audit_id ?? 0;
  useEffect(() => {
    if (!wantsLive || !isThere || !isVisible || !isIn) {
      setLive("off");
      return;
    }
    const mine = new AbortController();
    // Each of a burst would cost as much as all that is held.
    let burst: Entry[] = [];
    let timer: number | undefined;
    const show = (): void => {
      const came = burst;
      burst = [];
      timer = undefined;
      setHeld((before) => withNew(before, came));
    };
    setLive("reconnecting");
    void followAudit(filter, newest, {
      live: (isLive) => setLive(isLive ? "live" : "reconnecting"),
      entry: (entry) => {
        burst.push(entry);
        timer ??= setTimeout(show, GATHER_MS);
      },
      gap: (from, to) => setHeld((before) => ({ ...before, gap: [from, to] })),
      refused: (error) => setHeld((before) => ({ ...before, error })),
    }, mine.signal);
    return () => {
      mine.abort();
      if (timer === undefined) return;
      clearTimeout(timer);
      if (!abort.signal.aborted) show();
    };
  }, [wantsLive, isThere, isVisible, isIn, abort]);

  const hasMore = held.cursor !== null || held.until !== null;
  return {
    ...held,
    hasMore,
    live,
    more: () => { if (!held.isLoading && hasMore) void load(held.until === null ? held.cursor : null, held.until); },
    reload: () => again((count) => count + 1),
  };
}

function withNew(before: Held, came: readonly Entry[]): Held {
  const all = joined(came, before.rows ?? []);
  const rows = all.slice(0, MOST_HELD);
  const isNew = new Set(came.map((each) => each.audit_id));
  const fresh = new Set(rows.map((each) => each.audit_id).filter((id) => isNew.has(id) || before.fresh.has(id)));
  const oldest = all.length > MOST_HELD ? rows.at(-1) : undefined;
  // Its own millisecond once more: others may share it.
  const until = oldest ? new Date(Date.parse(oldest.at) + 1).toISOString() : before.until;
  return { ...before, rows, until, fresh };
}

/** A page may tell again what came by the stream meanwhile. */
function joined(one: readonly Entry[], other: readonly Entry[]): Entry[] {
  const known = new Map([...one, ...other].map((each) => [each.audit_id, each]));
  return [...known.values()].sort((left, right) => right.audit_id - left.audit_id);
}

function useVisible(): boolean {
  const [is, setIs] = useState(document.visibilityState === "visible");
  useEffect(() => {
    const change = (): void => setIs(document.visibilityState === "visible");
    document.addEventListener("visibilitychange", change);
    return () => document.removeEventListener("visibilitychange", change);
  }, []);
  return is;
}
