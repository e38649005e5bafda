// The TaskSpec, byte for byte as it was submitted.
import { client, ok } from "../../api/client";
import { useQuery } from "../../api/queries";
import type { Task } from "../../api/tasks";
import { href, withQuery } from "../../lib/route";
import { harmless } from "../../lib/safe";
import { Copy, Loading, Trouble } from "../../ui/parts";

export function Spec({ task }: { task: Task }) {
  const { data, error, refetch } = useQuery({
    key: ["spec", task.task_id],
    ask: async (signal) => String(await ok(client.GET("/api/v2/tasks/{task_id}/spec", { params: { path: { task_id: task.task_id } }, parseAs: "text", signal }))),
    staleTime: Infinity,
  });
  const isExport = task.workload === "export";
  return (
    <section class="card" aria-label="TaskSpec">
      <header>
        <h2 class="grow">TaskSpec</h2>
        {data === undefined ? null : <Copy text={data} label="Copy YAML" />}
        {isExport ? null : <a class="button small" href={withQuery(href("submit"), { from: task.task_id })}>Submit again, edited</a>}
      </header>
      {error && data === undefined ? <Trouble error={error} again={() => void refetch()} /> : data === undefined ? <Loading lines={10} /> : <pre class="in spec"><bdi dir="ltr">{yaml(data)}</bdi></pre>}
    </section>
  );
}

/** Keys stand out. Only looks: what is copied is the text itself. */
function yaml(text: string) {
  return text.split("\n").map((line, index) => {
    const found = /^(\s*(?:- )?[\w.-]+)(:.*)$/.exec(line);
    return <span key={index}>{index ? "\n" : ""}{found ? <><span class="spec-key">{harmless(found[1] ?? "")}</span>{harmless(found[2] ?? "")}</> : line.trimStart().startsWith("#") ? <span class="muted">{harmless(line)}</span> : harmless(line)}</span>;
  });
}
