// What the service says of the draft, asked for a moment after the last key. The last question alone is answered.
import { useEffect, useRef, useState } from "preact/hooks";
import { client, isPassing, ok, Refused, words, type Schemas } from "../../api/client";
import { token } from "../../api/session";
import { link } from "../../api/stream";

export type Validation = Schemas["ValidationOut"];
export type Refusal = Pick<Schemas["RefusalOut"], "code" | "detail" | "errors">;

export interface Check {
  readonly state: "empty" | "checking" | "checked" | "away";
  /** The newest answer, perhaps of an earlier text while the new one is being checked. */
  readonly answer: Validation | null;
  readonly refusals: readonly Refusal[];
}

const PAUSE_MS = 400;
const AGAIN_MS = 2_000;
/** Whether it fits changes while nobody types. */
const STALE_MS = 30_000;
export const MOST_BYTES = 8192;

const NOTHING: Check = { state: "empty", answer: null, refusals: [] };

export const yamlCall = (presets: readonly string[]) => ({
  // The service says what a form with the right fields would be typed as; this is the text that somebody wrote.
  bodySerializer: (body: unknown) => body as string,
  headers: { "Content-Type": "application/yaml" },
  params: { query: presets.length ? { preset: [...presets] } : {} },
});

export function useCheck(text: string, presets: readonly string[]): readonly [Check, (refused: Refusal) => void] {
  const [check, setCheck] = useState<Check>(NOTHING);
  const isFirst = useRef(true);
  const isIn = token.value !== null;
  const isBack = link.value === "live";
  const key = JSON.stringify([text, presets]);

  useEffect(() => {
    if (!text.trim()) {
      setCheck(NOTHING);
      return;
    }
    if (!isIn) return;
    const size = new TextEncoder().encode(text).length;
    if (size > MOST_BYTES) {
      setCheck({ state: "checked", answer: null, refusals: [refusedFor(`has ${size.toLocaleString("en")} bytes; ${MOST_BYTES.toLocaleString("en")} at most`)] });
      return;
    }
    const abort = new AbortController();
    let timer = setTimeout(() => void look(), isFirst.current ? 0 : PAUSE_MS);
    isFirst.current = false;
    setCheck((before) => ({ ...before, state: before.state === "away" ? "away" : "checking" }));

    async function look(): Promise<void> {
      let next = STALE_MS;
      try {
        const answer = await ok(client.POST("/api/v2/tasks:validate", { body: text as never, ...yamlCall(presets), signal: abort.signal }));
        if (!abort.signal.aborted) setCheck({ state: "checked", answer, refusals: answer.refusals });
      } catch (error) {
        if (abort.signal.aborted) return;
        if (isPassing(error)) {
          next = AGAIN_MS;
          setCheck((before) => ({ ...before, state: "away" }));
        } else setCheck({ state: "checked", answer: null, refusals: [asRefusal(error)] });
      }
      timer = setTimeout(() => void soon(), next);
    }

    async function soon(): Promise<void> {
      if (document.visibilityState === "visible") await look();
      else timer = setTimeout(() => void soon(), AGAIN_MS);
    }

    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [key, isIn, isBack]);

  const refuse = (refused: Refusal): void => setCheck((before) => ({ ...before, state: "checked", refusals: [refused] }));
  return [check, refuse];
}

function refusedFor(rule: string): Refusal {
  return { code: "body_too_large", detail: `The TaskSpec ${rule}.`, errors: [] };
}

export function asRefusal(error: unknown): Refusal {
  if (!(error instanceof Refused)) return { code: "", detail: words(error), errors: [] };
  const { code, detail, title, errors } = error.problem;
  return { code, detail: detail || title, errors: errors ?? [] };
}
