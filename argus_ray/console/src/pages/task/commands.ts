// What one types for the thing that is looked at.
import type { Task } from "../../api/tasks";
import { ENDED } from "../../api/tasks";
import { route } from "../../lib/route";
import { isStopping } from "./data";

export function commandOf(task: Task, tab: string): string {
  const { query } = route.value;
  const id = task.task_id;
  const option = (name: string, flag: string): string => (/^[\w.-]+$/.test(query.get(name) ?? "") ? ` ${flag} ${query.get(name)}` : "");
  switch (tab) {
    case "log":
      return `argus logs ${id}${option("attempt", "--attempt")}${ENDED.has(task.state) && !isStopping(task) ? "" : " -f"}`;
    case "curves":
      return `argus metrics ${id} --plot`;
    case "rollouts":
      return `argus rollouts ${id}${option("step", "--step")}${query.get("kind") === "validation" ? " --kind validation" : ""}`;
    case "explain":
      return `argus explain ${id}`;
    case "events":
      return `argus show ${id} --events`;
    case "spec":
      return `argus show ${id} --yaml`;
    case "files":
      return `argus files ${id}${option("attempt", "--attempt")}`;
    default:
      return ENDED.has(task.state) ? `argus show ${id}` : `argus watch ${id}`;
  }
}
