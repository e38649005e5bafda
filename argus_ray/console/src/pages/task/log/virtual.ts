// Rows of a log in sight: all of one height, or, where long lines are wrapped, each as high as it is.
import { elementScroll, measureElement, observeElementOffset, observeElementRect, Virtualizer } from "@tanstack/virtual-core";
import type { RefObject } from "preact";
import { useCallback, useEffect, useLayoutEffect, useReducer, useState } from "preact/hooks";
import type { Row } from "./rows";

export type LogVirtualizer = Virtualizer<HTMLElement, HTMLElement>;

/** `height`: of a row that is not wrapped, in pixels. */
export function useLogRows(scroller: RefObject<HTMLElement>, rows: readonly Row[], height: number, wrap: boolean): LogVirtualizer {
  const [, redraw] = useReducer((times: number) => times + 1, 0);
  const options = {
    count: rows.length,
    // The same function for the same rows: else all of them are measured anew at each drawing.
    getItemKey: useCallback((index: number) => rows[index]?.key ?? index, [rows]),
    getScrollElement: () => scroller.current,
    estimateSize: useCallback(() => height, [height]),
    overscan: 20,
    scrollToFn: elementScroll,
    observeElementRect,
    observeElementOffset,
    measureElement,
    onChange: () => redraw(0),
  };
  const [virtualizer] = useState(() => new Virtualizer<HTMLElement, HTMLElement>(options));
  virtualizer.setOptions(options);
  useEffect(() => virtualizer._didMount(), [virtualizer]);
  useLayoutEffect(() => virtualizer._willUpdate());
  useLayoutEffect(() => virtualizer.measure(), [virtualizer, height, wrap]);
  return virtualizer;
}
