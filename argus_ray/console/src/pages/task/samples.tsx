// One sample. Its texts may be long, and are shown in bounds until somebody asks for more.
import { useState } from "preact/hooks";
import type { Schemas } from "../../api/client";
import { number } from "../../lib/format";
import { harmless, oneLine } from "../../lib/safe";

export type Fit = (score: number | null) => boolean;

/** Characters that are shown at first. */
const SHOWN = 1200;

export function Sample({ sample }: { sample: Schemas["SampleOut"] }) {
  const look = sample.score === null ? "off" : sample.score > 0 ? "good" : "bad";
  const extra = Object.entries(sample.extra);
  return (
    <li class="sample">
      <div class="sample-head">
        <b class="num">#{sample.index + 1}</b>
        <span class="state" data-look={look}>{sample.score === null ? "no score" : `score ${number(sample.score)}`}</span>
        {sample.truncated ? <span class="muted">something is left out; the file has all of it</span> : null}
      </div>
      <Text name="Prompt" text={sample.prompt} />
      <Text name="Answer" text={sample.answer} />
      {sample.ground_truth === null || sample.ground_truth === undefined ? null : <Text name="Ground truth" text={asText(sample.ground_truth)} />}
      {extra.length ? (
        <details><summary>{extra.length} more {extra.length === 1 ? "field" : "fields"}</summary>
          <dl class="facts">{extra.map(([name, value]) => <><dt><bdi>{oneLine(name)}</bdi></dt><dd><bdi>{oneLine(asText(value)).slice(0, SHOWN)}</bdi></dd></>)}</dl>
        </details>
      ) : null}
    </li>
  );
}

const asText = (value: unknown): string => (typeof value === "string" ? value : (JSON.stringify(value) ?? ""));

function Text({ name, text }: { name: string; text: string | null }) {
  const [all, setAll] = useState(false);
  const isLong = text !== null && text.length > SHOWN;
  return (
    <div class="sample-text">
      <h3>{name}</h3>
      {text === null ? <p class="muted">none</p> : <pre dir="auto" tabIndex={0}>{harmless(all || !isLong ? text : text.slice(0, SHOWN))}{isLong && !all ? "…" : ""}</pre>}
      {isLong ? <button class="button small quiet" type="button" aria-expanded={all} onClick={() => setAll(!all)}>{all ? "Show less" : `Show all ${text.length.toLocaleString("en")} characters`}</button> : null}
    </div>
  );
}
