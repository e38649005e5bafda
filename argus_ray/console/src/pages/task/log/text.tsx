// One row of a log as text: colours as classes, a match marked, and nothing of it able to do anything.
import Anser from "anser";
import type { ComponentChildren } from "preact";
import { useMemo } from "preact/hooks";
import { harmless, withoutSteering } from "../../../lib/safe";
import type { Row } from "./rows";

export interface Mark {
  /** Bytes of the log. */
  readonly from: number;
  readonly to: number;
}

const decoder = new TextDecoder();
/** Zeros stand where a disk was full, or in a file with a hole: thousands of them tell no more than their number. */
const ZEROS = /\0{16,}/g;

interface Props {
  row: Row & { readonly kind: "text" };
  mark: Mark | null;
  /** Escape sequences as they stand there. */
  raw: boolean;
}

export function RowText({ row, mark, raw }: Props) {
  const { line, from, to } = row;
  // Rows are made anew with each line that comes; what they show stays the same.
  return useMemo(() => <>{pieces(row, mark, raw)}</>, [line.bytes, from, to, mark, raw]);
}

function pieces({ line, from, to }: Props["row"], mark: Mark | null, raw: boolean): ComponentChildren {
  const bytes = line.bytes.subarray(from, to);
  const start = line.start + from;
  if (!mark || mark.to <= start || mark.from >= start + bytes.length) return painted(new Anser(), bytes, raw);
  const [begin, end] = [Math.max(0, mark.from - start), Math.min(bytes.length, mark.to - start)];
  const anser = new Anser();
  return (
    <>
      {painted(anser, bytes.subarray(0, begin), raw)}
      <mark>{painted(anser, bytes.subarray(begin, end), raw)}</mark>
      {painted(anser, bytes.subarray(end), raw)}
    </>
  );
}

function painted(anser: Anser, bytes: Uint8Array, raw: boolean): ComponentChildren {
  const text = decoder.decode(bytes).replace(ZEROS, (zeros) => `‹${zeros.length.toLocaleString("en")} zero bytes›`);
  if (raw) return harmless(text);
  return anser.ansiToJson(withoutSteering(text), { use_classes: true, remove_empty: true }).map((part, index) => {
    const look = classes(part);
    const shown = harmless(part.content);
    return look ? <span key={index} class={look}>{shown}</span> : shown;
  });
}

function classes(part: Anser.AnserJsonEntry): string {
  const { decorations } = part;
  const isReverse = decorations.includes("reverse");
  const fg = name(part.fg, part.fg_truecolor);
  const bg = name(part.bg, part.bg_truecolor);
  const found = [fg ? `${fg}-fg` : "", bg ? `${bg}-bg` : ""];
  if (isReverse) found.push("ansi-reverse");
  // Never "hidden": what a run has written is shown.
  for (const each of ["bold", "dim", "italic", "underline", "strikethrough"] as const) if (decorations.includes(each)) found.push(`ansi-${each}`);
  return found.filter(Boolean).join(" ");
}

const HUES = ["red", "yellow", "green", "cyan", "blue", "magenta"] as const;

/** One of sixteen, which both themes can show: of 256 and of 16 million colours the nearest. */
function name(colour: string | null, rgb: string | null): string {
  if (!colour) return "";
  if (colour === "ansi-truecolor") return nearest((rgb ?? "").split(",").map(Number));
  const palette = /^ansi-palette-(\d+)$/.exec(colour);
  if (!palette) return colour;
  const at = Number(palette[1]);
  if (at >= 232) return nearest([8 + (at - 232) * 10, 8 + (at - 232) * 10, 8 + (at - 232) * 10]);
  const level = (step: number): number => (step % 6 ? 55 + (step % 6) * 40 : 0);
  return nearest([level(Math.floor((at - 16) / 36)), level(Math.floor((at - 16) / 6)), level(at - 16)]);
}

function nearest(rgb: readonly number[]): string {
  const [red = 0, green = 0, blue = 0] = rgb;
  const [high, low] = [Math.max(red, green, blue), Math.min(red, green, blue)];
  if (high - low < 40) return high < 64 ? "ansi-black" : high < 150 ? "ansi-bright-black" : high < 220 ? "ansi-white" : "ansi-bright-white";
  const sixth = high === red ? ((green - blue) / (high - low) + 6) % 6 : high === green ? (blue - red) / (high - low) + 2 : (red - green) / (high - low) + 4;
  return `ansi-${high > 200 ? "bright-" : ""}${HUES[Math.round(sixth) % 6]}`;
}
