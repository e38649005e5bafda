// Where a draft comes from: a template, a file, an earlier task. What was there can be brought back.
import { useEffect, useRef, useState } from "preact/hooks";
import { client, ok } from "../../api/client";
import { useQuery } from "../../api/queries";
import { bytes, shortId } from "../../lib/format";
import { go, href, route } from "../../lib/route";
import { Trouble } from "../../ui/parts";
import { toast } from "../../ui/toasts";
import { draft, replace, undo } from "./draft";
import { ABOUT, KINDS, templateOf } from "./templates";

/** A file may be longer than a TaskSpec, so that its end can be cut off here; but not any file. */
const MOST_BYTES = 65_536;

export async function takeFile(file: File): Promise<void> {
  if (file.size > MOST_BYTES) {
    toast(`${file.name} is no TaskSpec: it has ${bytes(file.size)}.`, "bad");
    return;
  }
  try {
    replace(new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer()).replaceAll("\r\n", "\n"), `file ${file.name}`);
  } catch {
    toast(`${file.name} is no text.`, "bad");
  }
}

/** `?template=` and `?from=` of the address are taken up once: a reload must not undo what was typed since. */
export function useAddress(): { readonly error: unknown; readonly again: () => void; readonly isLoading: boolean } {
  const template = route.value.query.get("template");
  const from = route.value.query.get("from");
  const asked = useQuery({ key: ["draft-from", from], ask: (signal) => askTask(from ?? "", signal), enabled: from !== null, staleTime: 0 });
  useEffect(() => {
    const text = templateOf(template);
    if (text !== null) replace(text, `template ${template}`, []);
    if (template !== null) go(href("submit"), { replace: true });
  }, [template]);
  useEffect(() => {
    if (from === null || !asked.data || asked.data.taskId !== from) return;
    replace(asked.data.text, `task ${shortId(from)}`, asked.data.presets);
    go(href("submit"), { replace: true });
  }, [from, asked.data]);
  return { error: from === null ? null : asked.error, again: () => void asked.refetch(), isLoading: from !== null && asked.isFetching };
}

async function askTask(taskId: string, signal: AbortSignal) {
  const params = { path: { task_id: taskId } };
  const [text, task] = await Promise.all([
    ok(client.GET("/api/v2/tasks/{task_id}/spec", { params, parseAs: "text", signal })),
    ok(client.GET("/api/v2/tasks/{task_id}", { params, signal })),
  ]);
  return { taskId, text: String(text), presets: task.presets };
}

export function Start() {
  const file = useRef<HTMLInputElement>(null);
  const { before, from } = draft.value;
  return (
    <div class="buttons">
      {from ? <span class="muted cut submit-from">from <bdi>{from}</bdi></span> : null}
      {before ? <button class="button quiet small" type="button" onClick={undo}>Bring back what was here</button> : null}
      <span class="muted">Template</span>
      <span class="buttons tight">
        {KINDS.map((kind) => <button key={kind} class="button small" type="button" title={ABOUT[kind]} aria-label={`Template ${kind}`} onClick={() => replace(templateOf(kind) ?? "", `template ${kind}`, [])}>{kind}</button>)}
      </span>
      <button class="button small" type="button" onClick={() => file.current?.click()}>Open a file…</button>
      <input ref={file} class="sr-only" type="file" tabIndex={-1} aria-label="A TaskSpec from a file" accept=".yaml,.yml,.json,.txt,text/*"
        onChange={(event) => { const [one] = event.currentTarget.files ?? []; event.currentTarget.value = ""; if (one) void takeFile(one); }} />
    </div>
  );
}

/** Files that are dropped anywhere on the page, instead of a browser that opens them in its place. */
export function useDrop(): boolean {
  const [isOver, setIsOver] = useState(false);
  useEffect(() => {
    const has = (event: DragEvent): boolean => event.dataTransfer?.types.includes("Files") ?? false;
    const over = (event: DragEvent): void => {
      if (!has(event)) return;
      event.preventDefault();
      setIsOver(true);
    };
    const leave = (event: DragEvent): void => { if (event.relatedTarget === null) setIsOver(false); };
    const drop = (event: DragEvent): void => {
      if (!has(event)) return;
      event.preventDefault();
      setIsOver(false);
      const [one] = event.dataTransfer?.files ?? [];
      if (one) void takeFile(one);
    };
    addEventListener("dragover", over);
    addEventListener("dragleave", leave);
    addEventListener("drop", drop);
    return () => {
      removeEventListener("dragover", over);
      removeEventListener("dragleave", leave);
      removeEventListener("drop", drop);
    };
  }, []);
  return isOver;
}

export function FromTrouble({ error, again }: { error: unknown; again: () => void }) {
  return error ? <Trouble error={error} again={again} /> : null;
}
