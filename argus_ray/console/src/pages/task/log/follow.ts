// A log as it grows, told by the one stream of the tab.
import { useEffect, useRef } from "preact/hooks";
import { followLog } from "../../../api/stream";
import type { LogWindow } from "./window";

interface Told {
  /** Whether the end is to stay in sight. */
  readonly follows: boolean;
  /** Lines came at the end of what is held. */
  came(lines: number): void;
  /** No more comes of this log. */
  ended(): void;
}

export function useFollowing(log: LogWindow, isLive: boolean, told: Told): void {
  const now = useRef(told);
  now.current = told;
  useEffect(() => {
    if (!isLive) return;
    async function grown(size: number | null): Promise<void> {
      now.current.came(await log.grown(size, now.current.follows));
    }
    return followLog({
      taskId: log.taskId,
      on(kind, data) {
        const number = attemptOf(data);
        const mine = log.view.peek()?.attempt ?? log.attempt;
        // Of another attempt the task's own document tells, and then that log is followed.
        if (number !== mine) return;
        // It begins at the end of now: what came between the first look and this is asked for.
        if (kind === "log_attempt") void grown(null);
        else if (kind === "log" || kind === "log_gap") void grown(Number(data["end"] ?? data["to"]));
        else if (kind === "log_end") now.current.ended();
      },
    });
  }, [log, isLive]);
}

function attemptOf(data: Record<string, unknown>): number | null {
  const number = data["number"] ?? data["attempt"];
  return typeof number === "number" ? number : null;
}
