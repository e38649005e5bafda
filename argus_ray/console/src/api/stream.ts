// The one connection of this tab: every change of the caller's tasks, the progress of those in sight, one log. It is
// closed while the tab is hidden, since a browser has six connections a host for all its tabs, and it goes on where it
// was: nothing is missed, and nothing comes twice.
import { effect, signal } from "@preact/signals";
import { createParser, type EventSourceMessage } from "eventsource-parser";
import { learnServerTime } from "../lib/format";
import { prefix, Refused, refusal, type Schemas } from "./client";
import { queries } from "./queries";
import { expire, me, token } from "./session";
import { counts, hear, learnProgress, type Progress } from "./tasks";

export type Link = "off" | "connecting" | "live" | "reconnecting";

export const link = signal<Link>("off");
/** When the page was last known to be current: milliseconds of this machine's clock. */
export const currentAt = signal(Date.now());
/** How often the stream has begun without telling all that was since: what was listed before is to be listed anew. */
export const breaks = signal(0);

export interface LogFollower {
  readonly taskId: string;
  /** `attempt`, `log`, `gap`, `end` or `error`, with what the stream says of it. */
  on(kind: "log" | "log_attempt" | "log_gap" | "log_end" | "log_error", data: Record<string, unknown>): void;
}

/** The longest pause between two tries, in milliseconds: after a restart the page is to be current within seconds. */
const LONGEST_PAUSE_MS = 2_000;
/** Comments come each 15 s; without a word for this long the connection is dead, whatever TCP thinks. */
const SILENCE_MS = 40_000;
/** Changes of what is followed are gathered for so long, in milliseconds. */
const GATHER_MS = 250;
const MOST_PROGRESS = 50;

const progressOf = new Map<string, number>();
let log: LogFollower | null = null;
let place: string | null = null;
let running: AbortController | null = null;
let gathering: number | undefined;

/** Have the progress of these told, too. Call what it returns to end that. */
export function followProgress(ids: readonly string[]): () => void {
  for (const id of ids) progressOf.set(id, (progressOf.get(id) ?? 0) + 1);
  change();
  return () => {
    for (const id of ids) {
      const left = (progressOf.get(id) ?? 1) - 1;
      if (left) progressOf.set(id, left);
      else progressOf.delete(id);
    }
    change();
  };
}

/** Have what is new in one log told; the last to ask has it. */
export function followLog(follower: LogFollower): () => void {
  log = follower;
  change();
  return () => {
    if (log === follower) {
      log = null;
      change();
    }
  };
}

let asked = "";
function wanted(): string {
  const query = new URLSearchParams();
  for (const id of [...progressOf.keys()].slice(-MOST_PROGRESS).sort()) query.append("progress", id);
  if (log) {
    query.set("log", log.taskId);
    query.set("log_tail", "0");
  }
  if ((me.peek()?.role ?? "user") !== "user") query.set("everyone", "true");
  return query.toString();
}

function change(): void {
  clearTimeout(gathering);
  gathering = setTimeout(() => {
    if (wanted() !== asked && running) restart();
  }, GATHER_MS);
}

function restart(): void {
  running?.abort();
  running = null;
  if (!token.peek() || !me.peek() || document.visibilityState === "hidden") {
    link.value = "off";
    return;
  }
  const mine = (running = new AbortController());
  void run(mine);
}

async function run(mine: AbortController): Promise<void> {
  if (link.peek() === "off") link.value = "connecting";
  for (let failures = 0; !mine.signal.aborted; failures++) {
    const heard = await once(mine);
    if (mine.signal.aborted) return;
    if (heard) failures = 0;
    link.value = "reconnecting";
    const pause = Math.min(LONGEST_PAUSE_MS, 200 * 2 ** failures) * (0.5 + Math.random() / 2);
    await new Promise((done) => setTimeout(done, pause));
  }
}

/** One connection, to its end. Whether it ever came about. */
async function once(mine: AbortController): Promise<boolean> {
  const connection = new AbortController();
  const stop = (): void => connection.abort();
  mine.signal.addEventListener("abort", stop);
  let silence = setTimeout(stop, SILENCE_MS);
  const alive = (): void => {
    clearTimeout(silence);
    silence = setTimeout(stop, SILENCE_MS);
    if (link.peek() === "live") currentAt.value = Date.now();
  };
  let heard = false;
  try {
    asked = wanted();
    const given = token.peek();
    const response = await fetch(`${prefix}/api/v2/stream?${asked}`, {
      headers: { Authorization: `Bearer ${given}`, Accept: "text/event-stream", ...(place ? { "Last-Event-ID": place } : {}) },
      signal: connection.signal,
      cache: "no-store",
    });
    if (!response.ok || !response.body) {
      await refused(response, given);
      return false;
    }
    const parser = createParser({
      onEvent: (event) => {
        if (event.event === "hello") {
          heard = true;
          link.value = "live";
          currentAt.value = Date.now();
        }
        take(event);
      },
      onComment: alive,
    });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return heard;
      alive();
      parser.feed(value);
    }
  } catch {
    return heard;
  } finally {
    clearTimeout(silence);
    mine.signal.removeEventListener("abort", stop);
    stop();
  }
}

async function refused(response: Response, given: string | null): Promise<void> {
  const error = refusal(await response.json().catch(() => null), response);
  if (!(error instanceof Refused)) return;
  if (response.status === 401 && given === token.peek()) expire("The token is not valid any more. Sign in again; nothing on this page is lost.");
  // A task that is followed and is gone: the others go on.
  else if (response.status === 404) {
    const gone = (error.problem.errors ?? []).map((each) => each.field.replace(/^tasks\./, ""));
    for (const id of gone.length ? gone : progressOf.keys()) progressOf.delete(id);
    if (!gone.length || (log && gone.includes(log.taskId))) log = null;
  } else if (response.status === 400) place = null;
}

function take(event: EventSourceMessage): void {
  if (event.id) place = event.id;
  const data = JSON.parse(event.data) as never;
  switch (event.event) {
    case "hello":
      learnServerTime((data as { now: string }).now);
      break;
    case "task":
      hear(data as Schemas["TaskSummary"]);
      break;
    case "counts":
      counts.value = data as Schemas["CountsOut"];
      break;
    case "progress": {
      const told = data as { task_id: string; progress: Progress | null };
      learnProgress(told.task_id, told.progress);
      break;
    }
    case "status": {
      const state = (data as { state: string }).state;
      link.value = state === "live" ? "live" : "reconnecting";
      if (state === "live") void queries.invalidateQueries();
      break;
    }
    case "resync":
      breaks.value += 1;
      void queries.invalidateQueries();
      break;
    case "error":
      if ((data as { code: string }).code === "unauthenticated") {
        expire("The token is not valid any more. Sign in again; nothing on this page is lost.");
      }
      break;
    case "log":
    case "log_attempt":
    case "log_gap":
    case "log_end":
    case "log_error":
      // Who follows it now: somebody else may, of the same task, since this connection began.
      if (log?.taskId === (data as { task_id: string }).task_id) log?.on(event.event, data);
  }
}

/** Begin; called once. */
export function startStream(): void {
  effect(() => {
    void token.value;
    void me.value;
    restart();
  });
  // Who signs in again sees what is now, whatever was last refused. Not with `me`: a load of the page would ask twice.
  effect(() => {
    if (token.value) void queries.invalidateQueries();
  });
  document.addEventListener("visibilitychange", () => {
    restart();
    if (document.visibilityState === "visible") void queries.invalidateQueries();
  });
  let was: Link = "off";
  effect(() => {
    const is = link.value;
    // What no event tells of (nodes, explanations) may have changed meanwhile.
    if (was === "reconnecting" && is === "live") void queries.invalidateQueries();
    was = is;
  });
}
