// The newest values of the rows in sight, asked again only now and then.
import { useEffect, useState } from "preact/hooks";
import { client, ok } from "../../api/client";
import { queries } from "../../api/queries";

const MOST = 100;
const EVERY_MS = 10_000;
const POINTS = 24;

export interface Spark {
  readonly name: string | null;
  readonly values: readonly number[];
}

/** Also of tasks that have ended: their last value is what came out. */
export function useSparklines(ids: readonly string[]): ReadonlyMap<string, Spark> {
  const [found, setFound] = useState<ReadonlyMap<string, Spark>>(new Map());
  const key = ids.join();
  useEffect(() => {
    let over = false;
    async function look(): Promise<void> {
      if (!ids.length || document.visibilityState === "hidden") return;
      const some = ids.slice(0, MOST);
      const answer = await queries.fetchQuery({ queryKey: ["sparks", some], queryFn: () => ask(some), staleTime: EVERY_MS, gcTime: 30_000, retry: false }).catch(() => null);
      if (!answer || over) return;
      setFound((before) => new Map([...before, ...answer]));
    }
    // Not while somebody scrolls by.
    const soon = setTimeout(() => void look(), 250);
    const timer = setInterval(() => void look(), EVERY_MS);
    return () => {
      over = true;
      clearTimeout(soon);
      clearInterval(timer);
    };
  }, [key]);
  return found;
}

async function ask(ids: readonly string[]): Promise<[string, Spark][]> {
  const answer = await ok(client.GET("/api/v2/sparklines", { params: { query: { task: [...ids], max_points: POINTS } } }));
  // An incomplete one comes whole with the next look; until then what was shown stays.
  return answer.tasks.filter((each) => each.complete).map((each) => [each.task_id, { name: each.name, values: each.values }]);
}
