// Rows of usage, put together for a chart by day and for a table of sums.
import { client, ok, type Schemas } from "../../api/client";

type Row = Schemas["UsageRowOut"];
export type By = "user" | "workload";
export type Sums = Schemas["UsageSums"];

/** So many have a colour of their own; what is left is one. */
const MOST_SERIES = 8;
const DAY_MS = 86_400_000;
/** Pages of 5,000 rows: a year of 100 users. */
const MOST_PAGES = 10;

export interface Series {
  readonly name: string;
  /** From 1; 0: all that have no colour of their own. */
  readonly colour: number;
  /** GPU seconds of each day. */
  readonly values: readonly number[];
}

export interface Used {
  readonly days: readonly string[];
  /** The largest first. */
  readonly series: readonly Series[];
  readonly rows: readonly { readonly name: string; readonly colour: number; readonly sums: Sums }[];
  readonly total: Sums;
  readonly isWhole: boolean;
}

export async function askUsage(by: By, since: string, signal: AbortSignal): Promise<Used> {
  const rows: Row[] = [];
  let cursor: string | null = null;
  let page: Schemas["UsageOut"];
  let pages = 0;
  do {
    page = await ok(client.GET("/api/v2/usage", { params: { query: { by: [by, "day"], since, limit: 5000, ...(cursor ? { cursor } : {}) } }, signal }));
    rows.push(...page.rows);
    cursor = page.next_cursor;
  } while (cursor && ++pages < MOST_PAGES);
  return used(rows, by, daysOf(page.since, page.until), cursor === null);
}

function daysOf(since: string, until: string): string[] {
  const days: string[] = [];
  for (let at = Date.parse(since.slice(0, 10)); at <= Date.parse(until.slice(0, 10)); at += DAY_MS) days.push(new Date(at).toISOString().slice(0, 10));
  return days;
}

const NOTHING: Sums = { gpu_seconds: 0, tasks: 0, succeeded: 0, failed: 0, canceled: 0 };

function plus(one: Sums, other: Sums): Sums {
  return {
    gpu_seconds: one.gpu_seconds + other.gpu_seconds,
    tasks: one.tasks + other.tasks,
    succeeded: one.succeeded + other.succeeded,
    failed: one.failed + other.failed,
    canceled: one.canceled + other.canceled,
  };
}

function used(rows: readonly Row[], by: By, days: readonly string[], isWhole: boolean): Used {
  const at = new Map(days.map((day, index) => [day, index]));
  const sums = new Map<string, Sums>();
  const values = new Map<string, number[]>();
  for (const row of rows) {
    const name = (by === "user" ? row.user_id : row.workload) ?? "";
    sums.set(name, plus(sums.get(name) ?? NOTHING, row));
    const own = values.get(name) ?? days.map(() => 0);
    const index = at.get(row.day ?? "");
    if (index !== undefined) own[index] = (own[index] ?? 0) + row.gpu_seconds;
    values.set(name, own);
  }
  const names = [...sums].sort(([, one], [, other]) => other.gpu_seconds - one.gpu_seconds || other.tasks - one.tasks).map(([name]) => name);
  const own = names.length <= MOST_SERIES ? names.length : MOST_SERIES - 1;
  const colour = (index: number): number => (index < own ? index + 1 : 0);
  const rest = names.slice(own);
  const series = names.slice(0, own).map((name, index): Series => ({ name, colour: colour(index), values: values.get(name) ?? [] }));
  if (rest.length) series.push({ name: `${rest.length} others`, colour: 0, values: days.map((_, day) => rest.reduce((sum, name) => sum + (values.get(name)?.[day] ?? 0), 0)) });
  return {
    days,
    series,
    rows: names.map((name, index) => ({ name, colour: colour(index), sums: sums.get(name) ?? NOTHING })),
    total: [...sums.values()].reduce(plus, NOTHING),
    isWhole,
  };
}
