// A submission goes on until it is answered: its key makes one task of all tries.
import { client, isPassing, ok, pauseOf, type Schemas } from "../../api/client";
import { yamlCall } from "./check";
import type { Draft } from "./draft";

/** As long as the command `argus submit` tries. */
const PATIENCE_MS = 60_000;
const LONGEST_PAUSE_MS = 3_000;

export async function send(draft: Draft, signal: AbortSignal, onWait: () => void): Promise<Schemas["SubmittedOut"]> {
  const end = Date.now() + PATIENCE_MS;
  for (let pause = 250; ; pause = Math.min(LONGEST_PAUSE_MS, pause * 2)) {
    try {
      const { headers, ...rest } = yamlCall(draft.presets);
      return await ok(client.POST("/api/v2/tasks", { body: draft.text as never, ...rest, headers: { ...headers, "Idempotency-Key": draft.key }, signal }));
    } catch (error) {
      if (signal.aborted || !isPassing(error) || Date.now() > end) throw error;
      onWait();
      await new Promise((done) => setTimeout(done, pauseOf(error, pause, LONGEST_PAUSE_MS)));
    }
  }
}
