// Words and numbers for people. Ages go by the server's clock, which may differ from this machine's.
import { signal } from "@preact/signals";

/** Milliseconds to add to this machine's clock to get the server's; set by answers and by the stream. */
let ahead = 0;

export function learnServerTime(now: string | number | null): void {
  const at = typeof now === "string" ? Date.parse(now) : now;
  if (at !== null && Number.isFinite(at)) ahead = at - Date.now();
}

export const serverNow = (): number => Date.now() + ahead;

/** Ticks each second while somebody can see it; read it in what shows an age. */
export const second = signal(0);
setInterval(() => {
  if (document.visibilityState === "visible") second.value += 1;
}, 1000);

const UNITS: readonly (readonly [string, number])[] = [["d", 86400], ["h", 3600], ["m", 60], ["s", 1]];

/** `45s`, `12m`, `1h50m`, `3d4h`: the two largest units, the second one only where it says something. */
export function duration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "";
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole}s`;
  const at = UNITS.findIndex(([, size]) => whole >= size);
  const [unit, size] = UNITS[at] as readonly [string, number];
  const [nextUnit, nextSize] = UNITS[at + 1] as readonly [string, number];
  const first = Math.floor(whole / size);
  const rest = Math.floor((whole - first * size) / nextSize);
  return rest && first < 10 && unit !== "m" ? `${first}${unit}${rest}${nextUnit}` : `${first}${unit}`;
}

export function age(time: string | null | undefined): string {
  return time ? duration((serverNow() - Date.parse(time)) / 1000) : "";
}

/** Until a time to come: `35m`; `now` for one that is over. */
export function until(time: string): string {
  const seconds = (Date.parse(time) - serverNow()) / 1000;
  return seconds <= 0 ? "now" : duration(seconds);
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "short", day: "numeric" });

export const timeOfDay = (at: number | string): string => clock.format(new Date(at));

export function moment(time: string | null | undefined): string {
  if (!time) return "";
  const date = new Date(time);
  return `${day.format(date)}, ${clock.format(date)}`;
}

/** At most four digits that matter: `0.4213`, `12.3`, `1.2e-6`, `12,345`. */
export function number(value: number | null | undefined): string {
  if (value === null || value === undefined) return "";
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(2).replace("e+", "e");
  if (Number.isInteger(value)) return value.toLocaleString("en");
  return value.toLocaleString("en", { maximumSignificantDigits: size >= 1000 ? 6 : 4 });
}

export const count = (many: number, one: string, more = `${one}s`): string =>
  `${many.toLocaleString("en")} ${many === 1 ? one : more}`;

export function bytes(size: number | null | undefined): string {
  if (size === null || size === undefined) return "";
  if (size < 1024) return `${size} B`;
  const at = Math.min(4, Math.floor(Math.log2(size) / 10));
  const scaled = size / 1024 ** at;
  return `${scaled < 10 ? scaled.toFixed(1) : Math.round(scaled).toLocaleString("en")} ${["B", "KiB", "MiB", "GiB", "TiB"][at]}`;
}

export const gpuHours = (gpuSeconds: number): string => number(Math.round(gpuSeconds / 36) / 100);

/** `2x8`: nodes by GPUs of each. */
export const gang = (of: { nnodes: number; gpus_per_node: number }): string => `${of.nnodes}×${of.gpus_per_node}`;

/** The end of an id, by which people know it. */
export const shortId = (taskId: string): string => taskId.slice(-4);
