// What an attempt has left in its job root: folders, sizes, and files to be saved.
import { useState } from "preact/hooks";
import { client, ok, Refused } from "../../api/client";
import { useQuery } from "../../api/queries";
import type { Task } from "../../api/tasks";
import { bytes, moment } from "../../lib/format";
import { href, route, setQuery, withQuery } from "../../lib/route";
import { oneLine } from "../../lib/safe";
import { Age, Loading, Trouble } from "../../ui/parts";
import { DownloadButton } from "./download";

const PAGE = 200;
const KINDS = { file: "", folder: "folder", link: "link, not followed", other: "not a plain file" } as const;

export function Files({ task }: { task: Task }) {
  const { query } = route.value;
  const path = query.get("path") ?? "";
  const newest = task.attempts.at(-1)?.number ?? 1;
  const attempt = Number(query.get("attempt")) || newest;
  if (!task.attempts.length) return <p class="card empty">There are no files yet: no attempt of it has begun.</p>;
  return (
    <section class="card files" aria-label="Files">
      <header>
        <Crumbs task={task} path={path} />
        {task.attempts.length > 1 ? (
          <select class="input files-attempt" aria-label="Attempt" value={String(attempt)} onChange={(event) => setQuery({ attempt: event.currentTarget.value, path: null })}>
            {task.attempts.map((each) => <option key={each.number} value={String(each.number)}>Attempt {each.number}</option>)}
          </select>
        ) : null}
      </header>
      <Folder key={`${attempt}/${path}`} task={task} attempt={attempt} path={path} />
    </section>
  );
}

/** `path` is percent-encoded, as entries have it: what is no UTF-8 in a name is kept so. */
function Crumbs({ task, path }: { task: Task; path: string }) {
  const parts = path.split("/").filter(Boolean);
  return (
    <nav class="crumbs grow" aria-label="Folders">
      <a href={at(task, "")}>job root</a>
      {parts.map((part, index) => <span key={index}> / <a href={at(task, parts.slice(0, index + 1).join("/"))} aria-current={index === parts.length - 1 ? "page" : undefined}><bdi>{oneLine(named(part))}</bdi></a></span>)}
    </nav>
  );
}

function at(task: Task, path: string): string {
  return withQuery(href("task", task.task_id, "files"), { path, attempt: route.value.query.get("attempt") });
}

function named(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function Folder({ task, attempt, path }: { task: Task; attempt: number; path: string }) {
  const [cursors, setCursors] = useState<readonly string[]>([]);
  const cursor = cursors.at(-1) ?? null;
  const { data, error, refetch } = useQuery({
    key: ["files", task.task_id, attempt, path, cursor],
    ask: (signal) => ok(client.GET("/api/v2/tasks/{task_id}/files", {
      params: { path: { task_id: task.task_id }, query: { path, attempt: String(attempt), limit: PAGE, ...(cursor ? { cursor } : {}) } },
      // The path is encoded already.
      querySerializer: ({ path: folder, ...rest }) => `${new URLSearchParams(rest as never)}${folder ? `&path=${folder}` : ""}`,
      signal,
    })),
    keepPrevious: true,
  });
  if (error && !data) return <NoFiles error={error} again={() => void refetch()} />;
  if (!data) return <Loading lines={6} />;
  if (!data.entries.length) return <p class="empty">This folder is empty.</p>;
  return (
    <>
      {data.complete ? null : <p class="note" data-look="wait">The folder has more entries than are looked at: some are missing here.</p>}
      <div class="scroll-x" tabIndex={0} role="group" aria-label="Table of files"><table class="table">
        <thead><tr><th scope="col">Name</th><th scope="col" class="num">Size</th><th scope="col">Changed</th><th scope="col"><span class="sr-only">To do</span></th></tr></thead>
        <tbody>
          {data.entries.map((entry) => (
            <tr key={entry.path}>
              <td class="files-name">{entry.kind === "folder" ? <a href={at(task, entry.path)}><bdi>{oneLine(entry.name)}</bdi>/</a> : <bdi>{oneLine(entry.name)}</bdi>}{KINDS[entry.kind] && entry.kind !== "folder" ? <span class="muted"> ({KINDS[entry.kind]})</span> : null}</td>
              <td class="num nowrap">{bytes(entry.size)}</td>
              <td class="nowrap muted" title={moment(entry.modified_at)}><Age time={entry.modified_at} suffix=" ago" /></td>
              <td class="files-do">{entry.kind === "file" ? <DownloadButton task={task} what={{ path: entry.path, attempt: data.attempt ?? attempt }} size={entry.size ?? 0} /> : null}</td>
            </tr>
          ))}
        </tbody>
      </table></div>
      {cursors.length || data.next_cursor ? (
        <p class="in buttons">
          <button class="button small" type="button" disabled={!cursors.length} onClick={() => setCursors(cursors.slice(0, -1))}>Before</button>
          <button class="button small" type="button" disabled={!data.next_cursor} onClick={() => setCursors([...cursors, data.next_cursor as string])}>After</button>
        </p>
      ) : null}
    </>
  );
}

function NoFiles({ error, again }: { error: Error; again: () => void }) {
  const code = error instanceof Refused ? error.problem.code : "";
  if (code === "files_gone") return <p class="empty">The files are gone: the job roots of this task are in the trash, or deleted.</p>;
  if (code === "file_not_found") return <p class="empty">There is no such folder in this attempt.</p>;
  return <Trouble error={error} again={again} />;
}
