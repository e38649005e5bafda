// A TaskSpec as its text: read for the form, and changed at one place for one field, so that comments, order, quotes and
// blank lines stay as somebody wrote them.
import { isMap, isScalar, LineCounter, parseDocument, Scalar, stringify, type Document, type Pair, type YAMLMap } from "yaml";

export interface FieldText {
  readonly value: string;
  /** From 1. */
  readonly line: number;
  /** It is no word on a line of its own (a block, an alias, a list): only the text can change it. */
  readonly isLocked: boolean;
  readonly style: Scalar.Type | undefined;
}

export interface Spec {
  readonly fields: ReadonlyMap<string, FieldText>;
  /** What makes it no mapping of YAML; the form waits for it to be mended. */
  readonly faults: readonly { readonly line: number; readonly text: string }[];
}

/** The service reads numbers and dates as YAML 1.1 does, so what looks like one is put in quotes. */
const OPTIONS = { version: "1.1", keepSourceTokens: true, merge: false } as const;

export function readSpec(text: string): Spec {
  const lines = new LineCounter();
  const document = parseDocument(text, { ...OPTIONS, lineCounter: lines });
  const faults = document.errors.map((error) => ({
    line: error.linePos?.[0].line ?? 1,
    text: error.code === "DUPLICATE_KEY" ? "This field stands twice." : `This is no YAML: ${(error.message.split("\n")[0] ?? "").replace(/ at line \d+, column \d+:?$/, "")}.`,
  }));
  const fields = new Map<string, FieldText>();
  const found = document.contents;
  if (isMap(found)) for (const pair of found.items) readPair(text, pair as Pair, lines, fields);
  else if (found !== null && !faults.length) faults.push({ line: 1, text: "This is no mapping of fields to values." });
  return { fields, faults };
}

function readPair(text: string, pair: Pair, lines: LineCounter, into: Map<string, FieldText>): void {
  if (!isScalar(pair.key) || !pair.key.range) return;
  const { line } = lines.linePos(pair.key.range[0]);
  const value = pair.value;
  if (isScalar(value) && value.range && !value.anchor && !value.tag && !String(value.type).startsWith("BLOCK")) {
    const shown = value.type === "PLAIN" ? (value.source ?? "") : String(value.value);
    into.set(String(pair.key.value), { value: shown, line, isLocked: false, style: value.type as Scalar.Type });
  } else {
    const range = (value as { range?: readonly number[] } | null)?.range;
    into.set(String(pair.key.value), { value: range ? text.slice(range[0], range[1]).trim() : "", line, isLocked: range !== undefined, style: undefined });
  }
}

export interface Change {
  readonly name: string;
  /** Empty: the field is left without a value, which is as if it were not there. */
  readonly value: string;
  readonly isWhole: boolean;
  /** How it was quoted when somebody began to type. */
  readonly style?: Scalar.Type | undefined;
}

/** The text with this field. `order`: of all fields, so that a new one has its place. */
export function withField(text: string, change: Change, order: readonly string[]): string {
  const document = parseDocument(text, OPTIONS);
  if (document.errors.length) return text;
  const changed = edited(text, document, change, order, change.style);
  if (readSpec(changed).fields.get(change.name)?.value === change.value) return changed;
  return edited(text, document, change, order, "QUOTE_DOUBLE");
}

function edited(text: string, document: Document.Parsed, change: Change, order: readonly string[], style: Scalar.Type | undefined): string {
  const found = document.contents as unknown;
  if (found === null) return appended(text, change, word(change, style, false));
  if (!isMap(found)) return text;
  const isFlow = found.flow === true;
  const given = word(change, style, isFlow);
  const pair = found.items.find((each) => isScalar(each.key) && each.key.value === change.name);
  if (pair) return replaced(text, pair as Pair, given, isFlow);
  if (!given) return text;
  return isFlow ? insertedInFlow(text, found, change.name, given) : inserted(text, found, change, given, order);
}

function word({ value, isWhole }: Change, style: Scalar.Type | undefined, isFlow: boolean): string {
  if (!value) return isFlow ? "null" : "";
  if (isWhole && /^-?(0|[1-9]\d*)$/.test(value)) return value;
  if (isFlow) return JSON.stringify(value);
  const scalar = new Scalar(value);
  if (style) scalar.type = style;
  return stringify(scalar, { version: "1.1", lineWidth: 0 }).trimEnd();
}

function replaced(text: string, pair: Pair, given: string, isFlow: boolean): string {
  const key = pair.key as Scalar;
  const colon = text.indexOf(":", key.range?.[1] ?? 0) + 1;
  const range = isScalar(pair.value) && pair.value.source !== "" ? pair.value.range : null;
  if (!range) return `${text.slice(0, colon)}${given ? ` ${given}` : ""}${text.slice(colon)}`;
  if (!given && !isFlow) return text.slice(0, colon) + text.slice(range[1]);
  return text.slice(0, range[0]) + given + text.slice(range[1]);
}

function appended(text: string, { name }: Change, given: string): string {
  return given ? `${text}${text && !text.endsWith("\n") ? "\n" : ""}${name}: ${given}\n` : text;
}

function inserted(text: string, map: YAMLMap, change: Change, given: string, order: readonly string[]): string {
  const line = `${change.name}: ${given}`;
  // A template has it as a comment, at its place.
  const hinted = new RegExp(`^# ?${change.name}:.*$`, "m");
  if (hinted.test(text)) return text.replace(hinted, () => line);
  const before = new Set(order.slice(0, order.indexOf(change.name)));
  const previous = map.items.findLast((each) => isScalar(each.key) && before.has(String(each.key.value)));
  if (!previous) {
    const start = map.range?.[0] ?? 0;
    return `${text.slice(0, start)}${line}\n${text.slice(start)}`;
  }
  const end = ((previous.value as { range?: readonly number[] } | null)?.range?.[1] ?? (previous.key as Scalar).range?.[1]) as number;
  const newline = text[end - 1] === "\n" ? end - 1 : text.indexOf("\n", end);
  return newline < 0 ? `${text}\n${line}\n` : `${text.slice(0, newline + 1)}${line}\n${text.slice(newline + 1)}`;
}

function insertedInFlow(text: string, map: YAMLMap, name: string, given: string): string {
  const last = map.items.at(-1) as Pair | undefined;
  const end = last ? ((last.value as Scalar | null)?.range?.[1] ?? (last.key as Scalar).range?.[1]) as number : (map.range?.[0] ?? 0) + 1;
  return `${text.slice(0, end)}${last ? ", " : ""}${JSON.stringify(name)}: ${given}${text.slice(end)}`;
}

/** Put every path that lies below a folder `common/` elsewhere below this one. */
export function underRoot(text: string, root: string): string {
  return text.replace(/(:\s*["']?)\/[^\s"']*?\/common\//g, (_all, before: string) => `${before}${root}/common/`);
}
