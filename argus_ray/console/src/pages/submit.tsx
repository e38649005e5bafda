// A new task: a form and its text, which follow each other, beside what the service says of it.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { isPassing, words } from "../api/client";
import { useQuery } from "../api/queries";
import { token } from "../api/session";
import { shortId } from "../lib/format";
import { go, href, route } from "../lib/route";
import { hasControls, quoted, withInput } from "../lib/shell";
import { isNarrow } from "../ui/media";
import { Copy, Loading, Trouble } from "../ui/parts";
import { toast } from "../ui/toasts";
import { asRefusal, useCheck, type Check, type Refusal } from "./submit/check";
import { change, draft, isKept, markSent, openDraft, type Draft } from "./submit/draft";
import { Editor, showLine } from "./submit/editor";
import { findingsOf, rootOf, type Finding } from "./submit/findings";
import { fieldId, Form } from "./submit/form";
import { Presets } from "./submit/presets";
import { askSchema } from "./submit/schema";
import { send } from "./submit/send";
import { FromTrouble, Start, useAddress, useDrop } from "./submit/start";
import { readSpec, underRoot } from "./submit/text";
import { fitWords, gangWords, stateWords, Verdict } from "./submit/verdict";

export function Submit() {
  useState(openDraft);
  const address = useAddress();
  const isOver = useDrop();
  const { text, presets, sent } = draft.value;
  const spec = useMemo(() => readSpec(text), [text]);
  const [check, refuse] = useCheck(text, presets);
  const findings = findingsOf(spec, check);
  const schema = useQuery({ key: ["schema"], ask: askSchema, staleTime: 600_000 });
  const area = useRef<HTMLTextAreaElement>(null);
  const [side, setSide] = useState<"form" | "text">("form");

  function show(finding: Finding): void {
    const field = document.getElementById(fieldId(finding.field));
    if (finding.line !== null && (side === "text" || !field)) {
      setSide("text");
      setTimeout(() => showLine(area.current, finding.line ?? 1));
    } else if (field) {
      setSide("form");
      setTimeout(() => field.focus());
    }
  }

  const root = rootOf(findings, text);
  const isBoth = !isNarrow.value;
  return (
    <div class="submit" data-over={isOver || undefined}>
      <div class="head">
        <h1 class="grow">Submit</h1>
        <Start />
      </div>
      <FromTrouble error={address.error} again={address.again} />
      {address.isLoading && !address.error ? <p class="note" role="status">Fetching the TaskSpec of that task…</p> : null}
      {isKept.value ? null : <p class="note" data-look="wait">The browser's storage is full: a reload would lose this draft.</p>}
      {sent ? <p class="note">This was accepted as <a class="mono" href={href("task", sent)}>{shortId(sent)}</a>. Submitting it again makes another task.</p> : null}
      {root && underRoot(text, root) !== text ? (
        <p class="note submit-root" data-look="wait">
          <span class="grow">The inputs of this service lie below <code>{root}/common/</code>.</span>
          <button class="button small" type="button" onClick={() => change({ text: underRoot(draft.peek().text, root) })}>Change the paths</button>
        </p>
      ) : null}
      {isBoth ? null : (
        <div class="segments" role="radiogroup" aria-label="Show">
          {(["form", "text"] as const).map((each) => <label key={each}><input type="radio" name="side" checked={side === each} onChange={() => setSide(each)} /><span>{each === "form" ? "Form" : "YAML"}</span></label>)}
        </div>
      )}
      <div class="submit-columns">
        <div class="submit-column" hidden={!isBoth && side !== "form"}>
          <section class="card" aria-label="Form">
            {schema.data ? <Form schema={schema.data} spec={spec} findings={findings} /> : schema.error ? <Trouble error={schema.error} again={() => void schema.refetch()} /> : <Loading lines={10} />}
          </section>
          <section class="card" aria-label="Presets">
            <header><h2>Presets</h2></header>
            <Presets chosen={presets} findings={findings} />
          </section>
        </div>
        <section class="card submit-text" aria-label="Text" hidden={!isBoth && side !== "text"}>
          <Editor text={text} change={(to) => change({ text: to })} findings={findings} area={area} />
        </section>
        <Verdict check={check} findings={findings} show={show} />
      </div>
      <Actions check={check} findings={findings} refuse={refuse} show={show} />
      {isOver ? <div class="drop" aria-hidden="true">Drop the TaskSpec here</div> : null}
    </div>
  );
}

interface ActionsProps {
  check: Check;
  findings: readonly Finding[];
  refuse: (refused: Refusal) => void;
  show: (finding: Finding) => void;
}

function Actions({ check, findings, refuse, show }: ActionsProps) {
  const [busy, setBusy] = useState<"" | "sending" | "waiting">("");
  const running = useRef<AbortController | null>(null);
  const wasRefused = useRef(false);
  const [look, state] = stateWords(check, findings);
  const { text, presets } = draft.value;
  const gang = check.answer?.gang;

  async function submit(): Promise<void> {
    const now = draft.peek();
    if (running.current || !now.text.trim() || !token.peek()) return;
    running.current = new AbortController();
    setBusy("sending");
    try {
      const made = await send(now, running.current.signal, () => setBusy("waiting"));
      if (draft.peek().key === now.key) markSent(made.task_id);
      toast(`Task ${shortId(made.task_id)} was accepted.`);
      if (route.peek().path[0] === "submit") go(href("task", made.task_id));
    } catch (error) {
      failed(error);
    } finally {
      running.current = null;
      setBusy("");
    }
  }

  function failed(error: unknown): void {
    const wasStopped = running.current?.signal.aborted ?? false;
    if (wasStopped || isPassing(error)) toast(`${wasStopped ? "Stopped." : words(error)} It may have been accepted all the same: submitting it again makes no second task.`, "bad");
    else if (token.peek()) {
      wasRefused.current = true;
      refuse(asRefusal(error));
    }
  }

  useEffect(() => {
    const first = findings.find((each) => each.look === "bad");
    if (!wasRefused.current || !first) return;
    wasRefused.current = false;
    show(first);
  });

  useEffect(() => {
    function key(event: KeyboardEvent): void {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      void submit();
    }
    addEventListener("keydown", key);
    return () => removeEventListener("keydown", key);
  });

  return (
    <div class="card submit-bar" role="region" aria-label="Submission">
      <p class="grow">
        <b class="submit-state" data-look={look} role="status">{state}</b>
        {gang && look !== "off" ? <span class="muted num submit-gang"> {gangWords(gang)}{fitWords(check.answer) ? `, ${fitWords(check.answer).toLowerCase()}` : ""}</span> : null}
      </p>
      {text.trim() && !hasControls(text) ? <Copy text={asCli(draft.value)} label="Copy as CLI" /> : null}
      {busy === "waiting" ? <button class="button" type="button" onClick={() => running.current?.abort()}>Stop trying</button> : null}
      <button class="button primary" type="button" disabled={busy !== "" || !text.trim()} title="Ctrl+Enter" onClick={() => void submit()}>
        {busy === "waiting" ? "No answer yet: trying again…" : busy ? "Submitting…" : presets.length ? `Submit with ${presets.length === 1 ? "a preset" : `${presets.length} presets`}` : "Submit"}
      </button>
    </div>
  );
}

function asCli({ text, presets }: Draft): string {
  return withInput(["argus submit -", ...presets.map((each) => `--preset ${quoted(each)}`)].join(" "), text);
}
