// Calls of the API: typed by its own document, with the token, and with problems as exceptions.
import createClient, { type Middleware } from "openapi-fetch";
import { learnServerTime } from "../lib/format";
import type { components, paths } from "./openapi";
import { expire, token } from "./session";

export type Schemas = components["schemas"];
export type Problem = Schemas["Problem"];

/** What a proxy has before the service's own paths; `data-prefix` of the page. */
export const prefix = document.documentElement.dataset["prefix"] ?? "";
/** How long one call may take, in milliseconds. */
const TIMEOUT_MS = 30_000;

/** An answer that is a problem. */
export class Refused extends Error {
  constructor(readonly problem: Problem, readonly requestId: string | null, readonly retryAfterMs: number | null = null) {
    super(problem.detail || problem.title);
  }
}

/** No answer at all, or one that comes from no Argus: a proxy that finds nobody behind it. */
export class Unreachable extends Error {
  constructor(readonly retryAfterMs: number | null = null) {
    super("The service does not answer.");
  }
}

const bearer: Middleware = {
  onRequest({ request }) {
    const given = token.peek();
    if (given && !request.headers.has("Authorization")) request.headers.set("Authorization", `Bearer ${given}`);
    return request;
  },
  onResponse({ request, response }) {
    learnServerTime(Date.parse(response.headers.get("Date") ?? ""));
    const mine = token.peek();
    if (response.status === 401 && mine && request.headers.get("Authorization") === `Bearer ${mine}`) {
      expire("The token is not valid any more. Sign in again; nothing on this page is lost.");
    }
  },
};

export const client = createClient<paths>({
  baseUrl: prefix,
  fetch: (request: Request) => fetch(new Request(request, { signal: AbortSignal.any([request.signal, AbortSignal.timeout(TIMEOUT_MS)]), cache: "no-store" })),
});
client.use(bearer);

interface Answer<Data> {
  data?: Data;
  error?: unknown;
  response: Response;
}

/** The data of an answer. Throws Refused or Unreachable. */
export async function ok<Data>(call: Promise<Answer<Data>>): Promise<Data> {
  let answer: Answer<Data>;
  try {
    answer = await call;
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Unreachable();
  }
  if (answer.response.ok) return answer.data as Data;
  throw refusal(answer.error, answer.response);
}

export function refusal(body: unknown, response: Response): Error {
  const problem = isProblem(body) ? body : null;
  const seconds = Number(response.headers.get("Retry-After"));
  const wait = seconds > 0 ? seconds * 1000 : null;
  return problem ? new Refused(problem, response.headers.get("X-Request-Id"), wait) : new Unreachable(wait);
}

function isProblem(body: unknown): body is Problem {
  return typeof body === "object" && body !== null && "code" in body && "status" in body;
}

/** Whether the same call may be answered later. Not a full queue (429), which may stay full: who submits is told at once. */
export function isPassing(error: unknown): boolean {
  return error instanceof Unreachable || (error instanceof Refused && error.problem.status >= 500);
}

/** A pause before the next try, in milliseconds: as long as the service asks for, if that is longer, and never all at once. */
export function pauseOf(error: unknown, otherwise: number, longest: number): number {
  const asked = error instanceof Unreachable || error instanceof Refused ? error.retryAfterMs : null;
  return Math.min(longest, Math.max(otherwise, asked ?? 0)) * (0.75 + Math.random() / 2);
}

/** What to tell of an error. */
export function words(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
