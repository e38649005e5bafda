// What is wrong, each with the field and the line that it is of.
import type { Check } from "./check";
import type { Spec } from "./text";

export interface Finding {
  /** `(document)` for the text as a whole. */
  readonly field: string;
  readonly rule: string;
  readonly line: number | null;
  readonly look: "bad" | "wait";
}

export const WHOLE = "(document)";

export function findingsOf(spec: Spec, check: Check): readonly Finding[] {
  const line = (field: string, rule: string): number | null => {
    const told = field === WHOLE ? /\(line (\d+)/.exec(rule)?.[1] : undefined;
    return told ? Number(told) : (spec.fields.get(field)?.line ?? null);
  };
  const own = spec.faults.map((each): Finding => ({ field: WHOLE, rule: each.text, line: each.line, look: "bad" }));
  const told = check.refusals.flatMap((refusal) =>
    refusal.errors.length
      ? refusal.errors.map(({ field, rule }): Finding => ({ field, rule, line: line(field, rule), look: "bad" }))
      : [{ field: WHOLE, rule: refusal.detail, line: null, look: "bad" } as const],
  );
  const warned = (check.answer?.warnings ?? []).map(({ field, rule }): Finding => ({ field, rule, line: line(field, rule), look: "wait" }));
  // The page sees at once, and tells the line of, what the service says of the whole text a moment later.
  return [...own, ...told.filter((each) => !own.length || each.field !== WHOLE), ...warned];
}

/** The shared root of this service, if paths were refused since they lie below another one. */
export function rootOf(findings: readonly Finding[], text: string): string | null {
  for (const { rule } of findings) {
    const root = /^must lie under (\/\S*)\/common\//.exec(rule)?.[1];
    if (root && /:\s*["']?\/[^\s"']*\/common\//.test(text)) return root;
  }
  return null;
}
