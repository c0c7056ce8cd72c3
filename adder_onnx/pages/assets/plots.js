"use strict";

/**
 * What pages with plots share: bars with names of others beside them. Needs the libraries d3 and
 * plot. Colours are those of CSS, so that a plot changes with light and dark.
 */
const plots = (() => {
  const { element, plot, shorten, visible } = adder;

  const ROW = 20;
  const LONG = 30; // rows, from which on the axis stands below, too
  const PENCIL = document.createElement("canvas").getContext("2d");
  PENCIL.font = "12px system-ui, sans-serif";

  /** How tips look: above what they tell of, so that they stay within the page. */
  const TIP = { anchor: "bottom", lineHeight: 1.3, lineWidth: Infinity };

  /** How many pixels a text in a plot takes. */
  const widthOf = (text) => PENCIL.measureText(text).width;

  /** Text of others as `adder.shorten` has it, with as many characters as so many pixels take. */
  const fit = (text, pixels) => {
    let [few, many] = [1, Math.min(Array.from(text).length, Math.ceil(pixels))];
    if (many < 2 || widthOf(shorten(text, many)) <= pixels) return shorten(text, Math.max(1, many));
    while (many - few > 1) {
      const middle = (few + many) >> 1;
      if (widthOf(shorten(text, middle)) <= pixels) few = middle;
      else many = middle;
    }
    return shorten(text, few);
  };

  const longest = (texts) => Math.ceil(d3.max(texts, widthOf) ?? 0);

  /**
   * Horizontal bars one below the other, each with a name at its left and a text at its right.
   * @param {Object[]} rows from top to bottom; the plot is as high as they need.
   * @param {Object} how
   *   `label`: what is shown, for the axis and for those who do not see it.
   *   `name(row)`: text of others, shortened where it has no room.
   *   `parts(row)`: the bar, of one piece or several: objects with `from`, `to`, perhaps a `fill`
   *     and an `open` one, which is an outline only. An infinite end is that of the axis.
   *   `text(row)`: of ours, short.
   *   `tip(row)`: lines that are shown under the name where the pointer is; by default the text.
   *   `ticks(value)`: of the axis; or a format of d3.
   *   `most`: where the axis ends, for plots that are compared; by default at the greatest value.
   */
  const bars = (rows, { label, name, parts, text, tip = text, ticks, most = 0 }) => {
    const texts = rows.map((row) => text(row));
    const pieces = rows.flatMap((row, i) => parts(row).map((part) => ({ ...part, i })));
    const ends = pieces.flatMap(({ from, to }) => [from, to]).filter(Number.isFinite);
    const [first, last] = [d3.min([0, ...ends]), d3.max([most, ...ends])];
    const domain = first < last ? [first, last] : [0, 1];
    const clip = (value) => Math.min(Math.max(value, domain[0]), domain[1]);
    const all = d3.range(rows.length);
    const longestName = longest(rows.map((row) => shorten(name(row), 200)));
    const draw = (width) => {
      const left = Math.min(longestName, Math.floor(0.36 * width)) + 12;
      const right = longest(texts) + 12;
      const middle = (left + width - right) / 2;
      const aside = 2 * Math.min(middle, width - middle) - 24; // in a tip about the middle
      const y = (i) => i;
      const bar = {
        y: "i",
        insetRight: pieces.length > rows.length ? 1 : 0,
        x1: (piece) => clip(piece.from),
        x2: (piece) => clip(piece.to),
        rx: 1.5,
      };
      const axis = { label: null, tickFormat: ticks, ticks: Math.max(2, width / 140) };
      return Plot.plot({
        width,
        height: rows.length * ROW + (rows.length > LONG ? 50 : 30),
        marginTop: 26,
        marginBottom: rows.length > LONG ? 24 : 4,
        marginLeft: left,
        marginRight: right,
        x: { domain, axis: null },
        y: { domain: all, axis: null, padding: 0.2 },
        marks: [
          Plot.gridX({ ticks: axis.ticks }),
          Plot.axisX({ anchor: "top", ...axis }),
          rows.length > LONG ? Plot.axisX({ anchor: "bottom", ...axis }) : null,
          Plot.barX(pieces.filter(({ open }) => !open), {
            ...bar,
            fill: (piece) => piece.fill ?? "var(--accent)",
          }),
          Plot.barX(pieces.filter(({ open }) => open), {
            ...bar,
            fill: "none",
            stroke: (piece) => piece.fill ?? "var(--accent)",
            strokeDasharray: "4 3",
          }),
          Plot.ruleX([0]),
          Plot.text(all, {
            y,
            text: (i) => fit(name(rows[i]), left - 12),
            title: (i) => visible(name(rows[i])).slice(0, 2000),
            frameAnchor: "left",
            textAnchor: "end",
            dx: -8,
            className: "names",
          }),
          Plot.text(all, {
            y,
            text: (i) => texts[i],
            frameAnchor: "right",
            textAnchor: "start",
            dx: 8,
            className: "texts",
          }),
          Plot.tip(
            all,
            Plot.pointerY({
              ...TIP,
              y,
              frameAnchor: "middle",
              title: (i) => `${fit(name(rows[i]), aside)}\n${tip(rows[i])}`,
            }),
          ),
        ],
        color: { type: "identity" },
      });
    };
    return plot(draw, label);
  };

  /** What colours stand for. @param {string[][]} pairs each a text of ours and its colour in CSS. */
  const legend = (pairs) =>
    element(
      "ul",
      { class: "legend" },
      pairs.map(([text, colour]) => element("li", { style: `--colour: ${colour}` }, text)),
    );

  return { bars, fit, legend, widthOf };
})();
