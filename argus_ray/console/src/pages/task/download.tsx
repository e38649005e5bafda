// What a run has left, to be saved. It comes by a call with the token in its header, never by a link: so it passes
// through memory, and what is large goes by a command instead.
import { useState } from "preact/hooks";
import { prefix, refusal, Unreachable, words } from "../../api/client";
import { token } from "../../api/session";
import type { Task } from "../../api/tasks";
import { bytes } from "../../lib/format";
import { Copy, Dialog } from "../../ui/parts";
import { toast } from "../../ui/toasts";

/** Bytes that are held in memory at most. */
export const MOST = 256 << 20;

/** The log of an attempt, or a file: `path` is percent-encoded, as the list has it. */
export type What = { readonly log: number } | { readonly path: string; readonly attempt: number };

interface Props {
  task: Task;
  what: What;
  size: number;
  label?: string;
}

export function DownloadButton({ task, what, size, label }: Props) {
  const [done, setDone] = useState<number | null>(null);
  const [asks, setAsks] = useState(false);

  async function save(): Promise<void> {
    if (size > MOST) {
      setAsks(true);
      return;
    }
    setDone(0);
    try {
      await download(address(task, what), nameOf(task, what), setDone);
    } catch (error) {
      toast(`${nameOf(task, what)}: ${words(error)}`, "bad");
    } finally {
      setDone(null);
    }
  }

  const name = label ?? "Download";
  return (
    <>
      <button class="button small" type="button" disabled={done !== null} aria-label={"path" in what ? `Download ${nameOf(task, what)}` : "Download the log"} onClick={() => void save()}>
        {done === null ? name : size > 0 ? `${Math.floor((done / size) * 100)} %` : "…"}
      </button>
      {asks ? (
        <Dialog title="Too large for a browser" close={() => setAsks(false)}>
          <p>It has {bytes(size)}. A command saves it straight to the disk, and goes on where it was broken off.</p>
          {commands(task, what).map((command) => (
            <div key={command} class="command"><code class="grow">{command}</code><Copy text={command} /></div>
          ))}
          <footer><button class="button" type="button" onClick={() => setAsks(false)}>Close</button></footer>
        </Dialog>
      ) : null}
    </>
  );
}

function address(task: Task, what: What): string {
  const root = `${prefix}/api/v2/tasks/${encodeURIComponent(task.task_id)}`;
  return "path" in what ? `${root}/files/${what.path}?attempt=${what.attempt}` : `${root}/logs/download?attempt=${what.log}`;
}

function nameOf(task: Task, what: What): string {
  if (!("path" in what)) return `${task.task_id}--a${what.log}.log`;
  const name = what.path.split("/").at(-1) ?? "file";
  try {
    return decodeURIComponent(name);
  } catch {
    return name;
  }
}

/** For a shell: within single quotes nothing means anything. */
const quoted = (text: string): string => (/^[\w./:@%+=-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`);

function commands(task: Task, what: What): string[] {
  const url = `${location.origin}${address(task, what)}`;
  const curl = `curl -fC - -o ${quoted(nameOf(task, what))} -H "Authorization: Bearer $ARGUS_TOKEN" ${quoted(url)}`;
  if (!("path" in what)) return [`argus logs ${task.task_id} --attempt ${what.log} --download ${quoted(nameOf(task, what))}`, curl];
  let path = what.path;
  try {
    path = decodeURIComponent(path);
  } catch {
    return [curl];
  }
  return [`argus files ${task.task_id} --attempt ${what.attempt} --download ${quoted(path)}`, curl];
}

async function download(url: string, name: string, tell: (done: number) => void): Promise<void> {
  const response = await fetch(url, { headers: { Authorization: `Bearer ${token.peek()}` }, cache: "no-store" }).catch(() => {
    throw new Unreachable();
  });
  if (!response.ok || !response.body) throw refusal(await response.json().catch(() => null), response);
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let [done, shown] = [0, 0];
  const reader = response.body.getReader();
  for (;;) {
    const { done: isOver, value } = await reader.read();
    if (isOver) break;
    parts.push(value);
    done += value.length;
    if (done > MOST + (MOST >> 2)) throw new Error("it has grown meanwhile, and is too large for a browser");
    if (performance.now() - shown > 200) {
      shown = performance.now();
      tell(done);
    }
  }
  const wanted = Number(response.headers.get("Content-Length"));
  if (wanted > 0 && done < wanted) throw new Error("it was broken off, or changed meanwhile; try again");
  // Always as bytes to be saved: nothing of a run opens as a page of this address.
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(parts, { type: "application/octet-stream" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
