// A log in parts: ranges of its bytes, and searches on the server.
import { client, ok, Refused, refusal, type Schemas } from "./client";

export interface Gap {
  readonly from: number;
  readonly to: number;
}

export interface Part {
  readonly bytes: Uint8Array;
  /** Of its first byte, in the log. */
  readonly from: number;
  /** Of the whole log, now. */
  readonly size: number;
  /** What the log has lost. */
  readonly gap: Gap | null;
  /** Null before there is one. */
  readonly attempt: number | null;
}

export type Wish = { readonly last: number } | { readonly from: number; readonly to: number };

const NOTHING = new Uint8Array(0);

/** Bytes of an attempt's log (null: of the newest one). Empty where there are none, as behind its end. Throws Refused or Unreachable. */
export async function logPart(taskId: string, attempt: number | null, wish: Wish, signal: AbortSignal): Promise<Part> {
  const range = "last" in wish ? `bytes=-${wish.last}` : `bytes=${wish.from}-${wish.to - 1}`;
  const { data, error, response } = await client.GET("/api/v2/tasks/{task_id}/logs", {
    params: { path: { task_id: taskId }, query: attempt === null ? {} : { attempt: String(attempt) } },
    headers: { Range: range },
    parseAs: "arrayBuffer",
    signal,
  }).catch((problem: unknown) => {
    if (signal.aborted) throw problem;
    return { data: undefined, error: null, response: new Response(null, { status: 503 }) };
  });
  const said = Number(response.headers.get("X-Argus-Attempt")) || null;
  const gap = gapOf(response.headers.get("X-Argus-Log-Gap"));
  const [place = "", size = "0"] = (response.headers.get("Content-Range") ?? "").replace("bytes ", "").split("/");
  if (response.status === 416) return { bytes: NOTHING, from: Number(size), size: Number(size), gap, attempt: said };
  if (!response.ok) throw refusal(error, response);
  const bytes = new Uint8Array(data as unknown as ArrayBuffer);
  return { bytes, from: Number(place.split("-")[0]), size: Number(size), gap, attempt: said };
}

function gapOf(text: string | null): Gap | null {
  const [from, to] = (text ?? "").split("-").map(Number);
  return from !== undefined && to ? { from, to } : null;
}

export interface Sought {
  readonly text: string;
  readonly regex: boolean;
  readonly anyCase: boolean;
}

export type Match = Schemas["MatchOut"];

export interface Found {
  readonly match: Match | null;
  readonly looked: number;
}

/** The first match from byte `from` on, or the last one before it. `tell`: how far it has looked, in bytes. */
export async function search(taskId: string, attempt: number | null, what: Sought, from: number | null, backward: boolean, signal: AbortSignal, tell: (at: number, size: number) => void): Promise<Match | null> {
  let place = from;
  for (;;) {
    const page = await ok(
      client.GET("/api/v2/tasks/{task_id}/logs/search", {
        params: {
          path: { task_id: taskId },
          query: { q: what.text, regex: what.regex, case: !what.anyCase, direction: backward ? "backward" : "forward", limit: 1, ...(place === null ? {} : { from: place }), ...(attempt === null ? {} : { attempt: String(attempt) }) },
        },
        signal,
      }),
    );
    const match = page.matches[0];
    if (match) return match;
    if (page.complete || page.next === null) return null;
    place = page.next;
    tell(place, page.size);
  }
}

/** Whether the log is gone with its job roots, or there is no such attempt. */
export const isNoLog = (error: unknown): error is Refused => error instanceof Refused && (error.problem.code === "files_gone" || error.problem.code === "log_not_found");
