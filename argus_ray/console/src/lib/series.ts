// Numbers of curves: joined, smoothed and cut for a chart. Pure.

export interface Points {
  readonly x: readonly number[];
  readonly y: readonly number[];
}

/** An exponential mean whose weight of the past is `part` (0: none), made fair at its beginning. */
export function smooth(values: readonly number[], part: number): number[] {
  if (part <= 0) return [...values];
  let mean = 0;
  let weight = 0;
  return values.map((value) => {
    mean = mean * part + value * (1 - part);
    weight = weight * part + (1 - part);
    return mean / weight;
  });
}

/** What was known, and what came: from the first step of the new part on, the new one alone counts. */
export function joined(old: Curve | undefined, fresh: Curve): Curve {
  const from = fresh.steps[0];
  if (!old || from === undefined) return old ?? fresh;
  const kept = lowerBound(old.steps, from);
  return {
    steps: [...old.steps.slice(0, kept), ...fresh.steps],
    values: [...old.values.slice(0, kept), ...fresh.values],
    attempt: [...old.attempt.slice(0, kept), ...fresh.attempt],
  };
}

export interface Curve {
  readonly steps: readonly number[];
  readonly values: readonly number[];
  readonly attempt: readonly number[];
}

/** The steps at which another attempt goes on, and which one. */
export function boundaries(curve: Curve): { at: number; attempt: number }[] {
  return curve.steps.flatMap((at, index) => {
    const attempt = curve.attempt[index] as number;
    return index > 0 && attempt !== curve.attempt[index - 1] ? [{ at, attempt }] : [];
  });
}

/** Seconds since the first step, from how long each step took; a curve that was reduced is filled in between. */
export function secondsAt(timing: Curve): (step: number) => number {
  const sums: number[] = [];
  timing.steps.forEach((step, index) => {
    const before = index ? (timing.steps[index - 1] as number) : step - 1;
    sums.push((sums[index - 1] ?? 0) + (timing.values[index] as number) * (step - before));
  });
  return (step) => {
    const at = Math.min(timing.steps.length - 1, lowerBound(timing.steps, step));
    return (sums[at] ?? 0) - Math.max(0, (timing.steps[at] ?? step) - step) * (timing.values[at] ?? 0);
  };
}

/** The first index whose value is not below; all of it sorted. */
export function lowerBound(values: readonly number[], value: number): number {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((values[middle] as number) < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** All series over the x of any of them, as uPlot takes them; null where one has no value. */
export function aligned(series: readonly Points[]): [number[], ...(number | null)[][]] {
  const [first] = series;
  if (series.length === 1 && first) return [[...first.x], [...first.y]];
  const xs = [...new Set(series.flatMap((each) => each.x))].sort((a, b) => a - b);
  const index = new Map(xs.map((x, at) => [x, at]));
  const columns = series.map((each) => {
    const column = new Array<number | null>(xs.length).fill(null);
    each.x.forEach((x, at) => (column[index.get(x) as number] = each.y[at] as number));
    return column;
  });
  return [xs, ...columns];
}
