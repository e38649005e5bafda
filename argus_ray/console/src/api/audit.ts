// The audit: pages of what was done, and what is being done now, by a stream of its own while somebody asks for it.
import { createParser } from "eventsource-parser";
import { client, ok, prefix, Refused, refusal, type Schemas } from "./client";
import { expire, token } from "./session";

export type Entry = Schemas["AuditEntryOut"];

export interface AuditFilter {
  readonly user: string | null;
  readonly actor: string | null;
  readonly action: string | null;
  readonly since: string | null;
}

export const PAGE = 100;
const LONGEST_PAUSE_MS = 2_000;
/** Comments come each 15 s. */
const SILENCE_MS = 40_000;

const given = (filter: AuditFilter): Record<string, string> =>
  Object.fromEntries(Object.entries(filter).filter((each): each is [string, string] => Boolean(each[1])));

/** A page: behind the cursor of the one before it, or of what was before a time (RFC 3339), or the newest. */
export async function listAudit(filter: AuditFilter, cursor: string | null, until: string | null, signal: AbortSignal): Promise<Schemas["AuditOut"]> {
  return ok(client.GET("/api/v2/audit", { params: { query: { ...given(filter), limit: PAGE, ...(cursor ? { cursor } : {}), ...(until ? { until } : {}) } }, signal }));
}

export interface AuditFollower {
  /** Whether entries come now. */
  live(isLive: boolean): void;
  entry(entry: Entry): void;
  /** Entries of these numbers are gone, and were not told. */
  gap(from: number, to: number): void;
  /** It goes on no more. */
  refused(error: Error): void;
}

/** Tell of each new entry; `after`: the number of the newest that is known. Ends with the signal. */
export async function followAudit(filter: AuditFilter, after: number, follower: AuditFollower, signal: AbortSignal): Promise<void> {
  let last = after;
  for (let failures = 0; !signal.aborted; failures++) {
    const connection = new AbortController();
    const stop = (): void => connection.abort();
    signal.addEventListener("abort", stop);
    try {
      const heard = await once(filter, last, connection, {
        ...follower,
        live: (isLive) => { failures = 0; follower.live(isLive); },
        entry: (entry) => { last = Math.max(last, entry.audit_id); follower.entry(entry); },
      });
      if (heard instanceof Error) {
        if (!signal.aborted) follower.refused(heard);
        return;
      }
    } catch {
      // Broken off: it goes on after the last entry.
    } finally {
      signal.removeEventListener("abort", stop);
      stop();
    }
    if (signal.aborted) return;
    follower.live(false);
    await new Promise((done) => setTimeout(done, Math.min(LONGEST_PAUSE_MS, 200 * 2 ** failures) * (0.5 + Math.random() / 2)));
  }
}

/** One connection. An error that is final, or null. */
async function once({ since: _since, ...filter }: AuditFilter, after: number, connection: AbortController, follower: AuditFollower): Promise<Error | null> {
  const mine = token.peek();
  const query = new URLSearchParams(given({ ...filter, since: null }));
  const response = await fetch(`${prefix}/api/v2/audit/stream?${query}`, {
    headers: { Authorization: `Bearer ${mine}`, Accept: "text/event-stream", "Last-Event-ID": String(after) },
    signal: connection.signal,
    cache: "no-store",
  });
  if (!response.ok || !response.body) {
    const error = refusal(await response.json().catch(() => null), response);
    if (response.status === 401 && mine === token.peek()) expire("The token is not valid any more. Sign in again; nothing on this page is lost.");
    return error instanceof Refused && response.status < 500 && response.status !== 429 ? error : null;
  }
  follower.live(true);
  const parser = createParser({
    onEvent: ({ event, data }) => {
      if (event === "entry") follower.entry(JSON.parse(data) as Entry);
      else if (event === "gap") {
        const { from, to } = JSON.parse(data) as { from: number; to: number };
        follower.gap(from, to);
      }
    },
  });
  const stop = (): void => connection.abort();
  let silence = setTimeout(stop, SILENCE_MS);
  try {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return null;
      clearTimeout(silence);
      silence = setTimeout(stop, SILENCE_MS);
      parser.feed(value);
    }
  } finally {
    clearTimeout(silence);
  }
}
