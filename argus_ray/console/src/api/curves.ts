// Curves of some tasks, kept current: all of them once, then what is new, whenever a task has made a step.
import { useEffect, useRef, useState } from "preact/hooks";
import { type Curve, joined } from "../lib/series";
import { client, isPassing, ok, type Problem, Refused, type Schemas } from "./client";
import { link } from "./stream";
import { taskSignal } from "./tasks";

export interface TaskCurves {
  readonly curves: Readonly<Record<string, Curve>>;
  readonly available: readonly string[];
  readonly attempts: Schemas["MetricsOut"]["attempts"];
  readonly lastStep: number | null;
  readonly problem: Problem | null;
}

/** As many points of a curve as the service keeps. */
const POINTS = 2048;
/** Two looks are at least so far apart, in milliseconds; and after a trouble. */
const PACE_MS = 2_000;
const TROUBLE_MS = 5_000;

export interface Curves {
  /** By task; null until the first answer. */
  readonly tasks: ReadonlyMap<string, TaskCurves> | null;
  readonly error: unknown;
}

/** `names`: beside the main curves; the API has 16 at most. */
export function useCurves(ids: readonly string[], names: readonly string[]): Curves {
  const [shown, setShown] = useState<Curves>({ tasks: null, error: null });
  const steps = ids.map((id) => taskSignal(id).value?.progress?.step ?? 0).join();
  const states = ids.map((id) => taskSignal(id).value?.state ?? "").join();
  const [key, chosen] = [ids.join(), names.join()];
  const lookAgain = useRef<() => void>(() => undefined);

  useEffect(() => {
    const abort = new AbortController();
    const held = new Map<string, TaskCurves>();
    let [looked, isLooking, isStale] = [0, false, false];
    let timer: number | undefined;
    async function look(): Promise<void> {
      [isLooking, isStale] = [true, false];
      try {
        await refresh(ids, names, held, abort.signal);
        looked = Date.now();
        if (!abort.signal.aborted) setShown({ tasks: new Map(held), error: null });
      } catch (error) {
        if (abort.signal.aborted) return;
        setShown((before) => ({ ...before, error }));
        if (isPassing(error)) timer = setTimeout(() => void look(), TROUBLE_MS);
      } finally {
        isLooking = false;
      }
      if (isStale && !abort.signal.aborted) plan();
    }
    function plan(): void {
      // A look that is under way is not begun anew: a run may be quicker than its answer.
      isStale = isLooking;
      if (isLooking) return;
      clearTimeout(timer);
      timer = setTimeout(() => void look(), Math.max(0, looked + PACE_MS - Date.now()));
    }
    lookAgain.current = plan;
    plan();
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [key, chosen]);
  useEffect(() => lookAgain.current(), [steps, states, link.value === "live"]);
  return shown;
}

async function refresh(ids: readonly string[], names: readonly string[], held: Map<string, TaskCurves>, signal: AbortSignal): Promise<void> {
  // The API has the main curves, or those that are named: with names of their own it is two calls.
  const sets: (readonly string[])[] = names.length ? [[], names] : [[]];
  const since = ids.length === 1 ? (held.get(ids[0] as string)?.lastStep ?? null) : null;
  for (const set of sets) {
    for (let round = 0; round < 20; round++) {
      const query = { task: [...ids], max_points: POINTS, ...(set.length ? { names: [...set] } : {}), ...(since === null ? {} : { since_step: since }) };
      const answer = await ok(client.GET("/api/v2/curves", { params: { query }, signal }));
      for (const each of answer.tasks) take(each, held, since);
      // One call reads for a second at most: the same call goes on.
      if (answer.tasks.every((each) => each.metrics?.complete ?? true)) break;
    }
  }
}

function take(told: Schemas["TaskCurvesOut"], held: Map<string, TaskCurves>, since: number | null): void {
  const before = held.get(told.task_id);
  const metrics = told.metrics;
  if (!metrics) {
    held.set(told.task_id, { curves: {}, available: [], attempts: [], lastStep: null, ...before, problem: told.problem ?? null });
    return;
  }
  // A step that went back has thrown away what came after it: what is held is not the run's history any more.
  const isNew = since === null || (metrics.last_step ?? 0) < since || metrics.attempts.length !== before?.attempts.length;
  const curves: Record<string, Curve> = { ...before?.curves };
  for (const [name, curve] of Object.entries(metrics.curves as Record<string, Curve>)) {
    curves[name] = isNew && since === null ? curve : joined(curves[name], curve);
  }
  held.set(told.task_id, {
    curves,
    available: metrics.available,
    attempts: metrics.attempts,
    // Null: the next look takes all of it.
    lastStep: isNew && since !== null ? null : metrics.last_step,
    problem: null,
  });
}

export const isGone = (error: unknown): boolean => error instanceof Refused && error.problem.code === "files_gone";
