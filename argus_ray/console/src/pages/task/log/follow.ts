// A log as it grows, told by the one stream of the tab.
import { useEffect, useRef } from "preact/hooks";
import { followLog } from "../../../api/stream";
import type { LogWindow } from "./window";

interface Told {
  /** Whether the end is to stay in sight. */
  readonly follows: boolean;
  /** Lines came at the end of what is held. */
  came(lines: number): void;
  /** Another attempt has begun to log. */
  attempt(number: number): void;
}

export function useFollowing(log: LogWindow, isLive: boolean, told: Told): void {
  const now = useRef(told);
  now.current = told;
  useEffect(() => {
    if (!isLive) return;
    async function grown(size: number | null): Promise<void> {
      const before = log.view.peek();
      await log.grown(size, now.current.follows);
      const after = log.view.peek();
      if (!before || !after || after.times !== before.times) return;
      now.current.came(after.lines.length - before.lines.length);
    }
    return followLog({
      taskId: log.taskId,
      on(kind, data) {
        const number = attemptOf(data);
        const mine = log.view.peek()?.attempt ?? log.attempt;
        if (kind === "log_attempt" && number !== null && number !== mine) now.current.attempt(number);
        // It begins at the end of now: what came between the first look and this is asked for.
        else if (kind === "log_attempt") void grown(null);
        else if ((kind === "log" || kind === "log_gap") && number === mine) void grown(Number(data["end"] ?? data["to"]));
      },
    });
  }, [log, isLive]);
}

function attemptOf(data: Record<string, unknown>): number | null {
  const number = data["number"] ?? data["attempt"];
  return typeof number === "number" ? number : null;
}
