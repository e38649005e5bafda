import "./styles/tokens.css";
import "./styles/base.css";
import "./styles/parts.css";
import "./styles/tasks.css";
import "./styles/curves.css";
import "./styles/pool.css";
import "./styles/task.css";
import "./styles/submit.css";
import "./styles/admin.css";
import { render } from "preact";
import { App } from "./app";

render(<App />, document.getElementById("app") as HTMLElement);
