// The text: a plain field of the browser's, and beneath it the same text in colours, with numbers and marks of its lines.
import type { RefObject } from "preact";
import type { Finding } from "./findings";

interface Props {
  text: string;
  change: (text: string) => void;
  findings: readonly Finding[];
  area: RefObject<HTMLTextAreaElement>;
}

export function Editor({ text, change, findings, area }: Props) {
  const marks = new Map<number, Finding>();
  for (const each of findings) if (each.line !== null && marks.get(each.line)?.look !== "bad") marks.set(each.line, each);
  return (
    <div class="yaml">
      <div class="yaml-in">
        <div class="yaml-lines" aria-hidden="true">
          {text.split("\n").map((line, index) => <div key={index} class="yaml-line" data-line={index + 1} data-look={marks.get(index + 1)?.look}><Coloured line={line} /></div>)}
        </div>
        <textarea ref={area} class="yaml-text" aria-label="TaskSpec as YAML" aria-invalid={findings.some((each) => each.look === "bad")} aria-describedby="findings" wrap="off" spellcheck={false}
          autoComplete="off" autoCapitalize="off" value={text} onInput={(event) => change(event.currentTarget.value)} />
      </div>
    </div>
  );
}

const LINE = /^(\s*)(#.*|([\w-]+)(\s*:)(?=\s|$)(.*))$/s;
const REST = /^((?:"(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^#"']|(?<=\S)#|["'])*?)(\s+#.*)?$/s;

function Coloured({ line }: { line: string }) {
  const [, space = "", all = "", key, colon = "", rest = ""] = LINE.exec(line) ?? [];
  if (key === undefined) return all ? <>{space}<span class="y-note">{all}</span></> : <>{line}</>;
  const [, value = rest, note = ""] = REST.exec(rest) ?? [];
  return <>{space}<span class="y-key">{key}</span>{colon}<span class="y-value">{value}</span>{note ? <span class="y-note">{note}</span> : null}</>;
}

/** Go to a line, as its mark is pressed. */
export function showLine(area: HTMLTextAreaElement | null, line: number): void {
  if (!area) return;
  const lines = area.value.split("\n");
  const start = lines.slice(0, line - 1).reduce((sum, each) => sum + each.length + 1, 0);
  area.focus();
  area.setSelectionRange(start, start + (lines[line - 1]?.length ?? 0));
  area.previousElementSibling?.children[line - 1]?.scrollIntoView({ block: "nearest", inline: "start" });
}
