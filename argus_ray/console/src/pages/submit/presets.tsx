// Presets of the operator: chosen in an order, since a later one wins. Each shows what it sets.
import { client, ok, type Schemas } from "../../api/client";
import { useQuery } from "../../api/queries";
import { count } from "../../lib/format";
import { Loading, Trouble } from "../../ui/parts";
import type { Finding } from "./findings";
import { change } from "./draft";

type Preset = Schemas["PresetOut"];
const MOST = 16;

export function Presets({ chosen, findings }: { chosen: readonly string[]; findings: readonly Finding[] }) {
  const { data, error, refetch } = useQuery({ key: ["presets"], ask: (signal) => ok(client.GET("/api/v2/presets", { signal })), staleTime: 60_000 });
  const wrong = findings.filter((each) => each.field === "preset");
  if (!data) return error ? <Trouble error={error} again={() => void refetch()} /> : <Loading lines={1} />;
  const offered = data.presets.filter((each) => each.selectable);
  const known = new Map(offered.map((each) => [each.name, each]));
  if (!offered.length && !chosen.length) return <p class="muted in">This service offers none.</p>;
  // Who sets a key last has it.
  const winner = new Map<string, string>();
  for (const name of chosen) for (const key of Object.keys(known.get(name)?.set ?? {})) winner.set(key, name);
  const set = (presets: readonly string[]): void => change({ presets });
  return (
    <>
      {wrong.map((each) => <p key={each.rule} class="wrong in" role="alert">{each.rule}</p>)}
      <ol class="presets">
        {chosen.map((name, index) => (
          <Row key={name} name={name} preset={known.get(name)} place={index + 1} isLost={(key) => winner.get(key) !== name} toggle={() => set(chosen.filter((each) => each !== name))}
            earlier={index > 0 ? () => set(moved(chosen, index, index - 1)) : null} later={index < chosen.length - 1 ? () => set(moved(chosen, index, index + 1)) : null} />
        ))}
        {offered.filter((each) => !chosen.includes(each.name)).map((each) => (
          <Row key={each.name} name={each.name} preset={each} place={null} isLost={() => false} toggle={chosen.length < MOST ? () => set([...chosen, each.name]) : null} earlier={null} later={null} />
        ))}
      </ol>
    </>
  );
}

function moved(all: readonly string[], from: number, to: number): string[] {
  const next = all.filter((_, index) => index !== from);
  next.splice(to, 0, all[from] as string);
  return next;
}

interface RowProps {
  name: string;
  preset: Preset | undefined;
  /** From 1; null: it is not chosen. */
  place: number | null;
  /** Whether a later one sets this key, too. */
  isLost: (key: string) => boolean;
  toggle: (() => void) | null;
  earlier: (() => void) | null;
  later: (() => void) | null;
}

function Row({ name, preset, place, isLost, toggle, earlier, later }: RowProps) {
  const keys = Object.entries(preset?.set ?? {});
  return (
    <li class="preset" data-chosen={place !== null || undefined}>
      <div class="preset-head">
        <label class="grow"><input type="checkbox" checked={place !== null} disabled={!toggle} onChange={() => toggle?.()} /> <bdi>{name}</bdi>{place !== null && (earlier || later) ? <span class="muted"> {place}.</span> : null}</label>
        {earlier || later ? (
          <>
            <button class="button small quiet" type="button" disabled={!earlier} aria-label={`${name} earlier`} title="Earlier" onClick={() => earlier?.()}>↑</button>
            <button class="button small quiet" type="button" disabled={!later} aria-label={`${name} later`} title="Later: what comes later wins" onClick={() => later?.()}>↓</button>
          </>
        ) : null}
      </div>
      {preset ? (
        <ul class="preset-sets" aria-label={`${name} sets ${count(keys.length, "setting")}`}>
          {keys.map(([key, value]) => (
            <li key={key} data-lost={(place !== null && isLost(key)) || undefined}>
              <code>{key}={shown(value)}</code>{place !== null && isLost(key) ? <span class="muted"> a later one sets it</span> : null}
            </li>
          ))}
        </ul>
      ) : <p class="wrong">It is not offered here.</p>}
    </li>
  );
}

export const shown = (value: unknown): string => (typeof value === "string" ? value : JSON.stringify(value));
