// What the service says of the draft: what is wrong, whether it fits, and what exactly would run.
import { type Schemas } from "../../api/client";
import { count } from "../../lib/format";
import { commandLines, quoted } from "../../lib/shell";
import { Bar, Copy, Loading } from "../../ui/parts";
import { startWords } from "../../ui/start";
import type { Check, Validation } from "./check";
import { WHOLE, type Finding } from "./findings";
import { shown } from "./presets";

type Gang = Schemas["GangOut"];

/** `2 nodes × 8 GPUs = 16 GPUs`. */
export function gangWords({ nnodes, gpus_per_node, gpus }: Gang): string {
  return nnodes === 1 ? `1 node with ${count(gpus_per_node, "GPU")}` : `${count(nnodes, "node")} × ${count(gpus_per_node, "GPU")} = ${count(gpus, "GPU")}`;
}

const FITS: Readonly<Record<Schemas["Fit"], readonly [look: string, words: string]>> = {
  NOW: ["good", "Fits now"],
  WOULD_WAIT: ["wait", "Would wait"],
  NEVER_ON_THIS_POOL: ["bad", "Never fits this pool"],
  UNKNOWN: ["off", "Nobody knows whether it fits"],
};

export function fitWords(answer: Validation | null): string {
  return answer?.fit ? FITS[answer.fit.fit][1] : "";
}

export function stateWords(check: Check, findings: readonly Finding[]): readonly [look: string, words: string] {
  const bad = findings.filter((each) => each.look === "bad").length;
  if (check.state === "away") return ["wait", "Not checked: the service does not answer"];
  if (check.state === "empty") return ["off", "Nothing to check yet"];
  if (bad) return ["bad", `${count(bad, "thing")} to mend`];
  if (check.state === "checking") return ["off", "Checking…"];
  return ["good", "Would be accepted now"];
}

interface Props {
  check: Check;
  findings: readonly Finding[];
  show: (finding: Finding) => void;
}

export function Verdict({ check, findings, show }: Props) {
  const { answer } = check;
  return (
    <section class="card verdict" aria-label="Checks" data-old={check.state !== "checked" || undefined}>
      <header><h2 class="grow">Checks</h2><span class="muted">{check.state === "checking" ? "checking…" : check.state === "away" ? "not checked" : ""}</span></header>
      {check.state === "away" ? <p class="note verdict-note" data-look="wait">Not checked: the service does not answer. It goes on by itself.</p> : null}
      {findings.length ? <Findings findings={findings} show={show} /> : null}
      {answer ? <Answer answer={answer} /> : check.state === "checking" ? <Loading /> : check.state === "empty" ? (
        <p class="in muted">Each change is checked by the service: the rules, the files that it names, and whether the pool has room.</p>
      ) : null}
    </section>
  );
}

function Findings({ findings, show }: Pick<Props, "findings" | "show">) {
  return (
    <ul class="findings" id="findings" aria-label="What to mend">
      {findings.map((each) => (
        <li key={each.field + each.rule} data-look={each.look}>
          <button type="button" onClick={() => show(each)}>
            {each.field === WHOLE && !each.line ? null : <span class="finding-place"><b>{each.field === WHOLE ? "" : <bdi>{each.field}</bdi>}</b> {each.line ? <span class="muted">line {each.line}</span> : null}</span>}
            <span>{each.look === "wait" ? "Warning: " : ""}{each.rule}</span>
          </button>
        </li>
      ))}
    </ul>
  );
}

function Answer({ answer }: { answer: Validation }) {
  const { gang, fit, limits } = answer;
  // Told by services that can work it out for a task that is not there yet.
  const start = "start" in answer ? startWords(answer.start as Parameters<typeof startWords>[0]) : "";
  return (
    <>
      {gang ? (
        <div class="in verdict-part">
          <p class="verdict-gang num">{gangWords(gang)}</p>
          <p class="muted num">and {count(gang.cpus, "CPU")}{gang.nnodes > 1 ? `, ${gang.cpus_per_node.toLocaleString("en")} on each` : ""}</p>
          {fit ? (
            <>
              <p class="verdict-fit"><span class="state" data-look={FITS[fit.fit][0]}>{FITS[fit.fit][1]}</span>{start && fit.fit !== "NOW" ? <span class="num">{start}</span> : null}</p>
              <p class="muted">{fit.summary}.</p>
            </>
          ) : null}
        </div>
      ) : null}
      <Limits limits={limits} />
      {answer.settings ? <Settings settings={answer.settings} /> : null}
      {answer.command ? <More title="Command" text={commandLines(answer.command)} about={answer.placeholder} /> : null}
      {answer.env ? <More title="Environment" text={Object.entries(answer.env).map(([name, value]) => `${name}=${quoted(value)}`).join("\n")} about={answer.placeholder} /> : null}
    </>
  );
}

function Limits({ limits }: { limits: Schemas["LimitsOut"] }) {
  const { waiting_tasks: waiting, waiting_tasks_limit: most, gpus_held: held, gpus_quota: quota } = limits;
  return (
    <dl class="in verdict-part limits num">
      <dt>Your waiting tasks</dt><dd>{waiting.toLocaleString("en")} of {most.toLocaleString("en")}</dd>
      <dd class="limit-bar"><Bar part={most ? waiting / most : 1} look={waiting >= most ? "bad" : "run"} label="Waiting tasks of the limit" /></dd>
      <dt>Your GPUs in use</dt><dd>{held.toLocaleString("en")}{quota === null ? "" : ` of ${quota.toLocaleString("en")}`}</dd>
      {quota === null ? null : <dd class="limit-bar"><Bar part={quota ? held / quota : 1} look={held >= quota ? "bad" : "run"} label="GPUs of the quota" /></dd>}
      <dt>Others wait before it</dt><dd>{limits.others_waiting.toLocaleString("en")}</dd>
    </dl>
  );
}

function Settings({ settings }: { settings: readonly Schemas["SettingOut"][] }) {
  const changed = settings.filter((each) => each.source !== "default");
  const rest = settings.filter((each) => each.source === "default");
  return (
    <details class="verdict-more">
      <summary>Settings <span class="muted">{changed.length ? `${changed.length} of ${settings.length} changed` : `${settings.length}, all by default`}</span></summary>
      <ul class="settings">
        {[...changed, ...rest].map((each) => (
          <li key={each.key}><code>{each.key}={shown(each.value)}</code> <span class={each.source === "default" ? "muted" : "source"}>{each.source}</span></li>
        ))}
      </ul>
    </details>
  );
}

function More({ title, text, about }: { title: string; text: string; about: string | null }) {
  return (
    <details class="verdict-more">
      <summary>{title}</summary>
      <div class="more-text">
        <Copy text={text} />
        {about ? <p class="muted">Zeros in <code>{about}</code> stand for the time of the acceptance.</p> : null}
        <pre tabIndex={0} role="region" aria-label={title}><code>{text}</code></pre>
      </div>
    </details>
  );
}
