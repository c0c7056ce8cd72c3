"use strict";

/** Plots of two models: how far their values are apart along the graph, and what they cost. */
const differencePlots = (() => {
  const { element, plot, shorten, si } = adder;

  const HEIGHT = 300;

  /** Which kind a value is of: a ratio that can be drawn, or one of those that cannot. */
  const kind = (value) => {
    if (value.identical) return "identical";
    return value.not_finite > 0 || value.snr_db === null ? "none" : "ratio";
  };

  /** A ratio in words. */
  const ratio = (value) => {
    if (value.identical) return "identical";
    if (value.not_finite > 0) return `${si(value.not_finite)} not finite`;
    return value.snr_db === null ? "no signal" : `${value.snr_db.toFixed(1)} dB`;
  };

  const tip = (value) =>
    [
      shorten(value.a, 40),
      ...(value.a === value.b ? [] : [`B: ${shorten(value.b, 37)}`]),
      shorten(value.op.split(".").at(-1), 40),
      ratio(value),
    ].join("\n");

  /** The ratios in the order of the graph; identical values stand above all others. */
  const ratios = (values, threshold) => {
    const rows = values.map((value, i) => ({ value, i: i + 1, kind: kind(value) }));
    const known = rows.filter((row) => row.kind === "ratio").map((row) => row.value.snr_db);
    const low = Math.min(0, threshold, d3.min(known) ?? 0);
    const high = Math.max(threshold, d3.max(known) ?? threshold);
    const room = Math.max(10, 0.12 * (high - low));
    const has = (wanted) => rows.some((row) => row.kind === wanted);
    const levels = {
      identical: high + (has("identical") ? room : 0),
      none: low - (has("none") ? room : 0),
    };
    const ticks = d3.ticks(low, high, 6);
    if (has("identical")) ticks.push(levels.identical);
    if (has("none")) ticks.push(levels.none);
    const label = (tick) => {
      if (has("identical") && tick === levels.identical) return "identical";
      return has("none") && tick === levels.none ? "none" : String(tick);
    };
    const small = rows.length > 300 ? 0.5 : 1; // points would hide each other
    const y = (row) => (row.kind === "ratio" ? row.value.snr_db : levels[row.kind]);
    const of = (wanted) => rows.filter((row) => row.kind === wanted);
    const draw = (width) =>
      Plot.plot({
        width,
        height: HEIGHT,
        marginLeft: 64,
        marginRight: 16,
        marginTop: 28,
        marginBottom: 40,
        x: {
          domain: [1, Math.max(2, rows.length)],
          label: "value, in the order of A",
          tickFormat: (i) => (Number.isInteger(i) ? String(i) : ""),
        },
        y: {
          domain: [levels.none, levels.identical],
          label: "signal-to-noise ratio, dB",
          ticks,
          tickFormat: label,
          grid: true,
        },
        marks: [
          Plot.ruleY([threshold], { stroke: "var(--bad)", strokeDasharray: "4 4" }),
          Plot.line(rows, { x: "i", y, stroke: "var(--faint)", strokeWidth: 1 }),
          Plot.dot(of("ratio"), { x: "i", y, r: 3 * small, fill: "var(--accent)" }),
          Plot.dot(of("identical"), {
            x: "i",
            y,
            r: 3.5 * small,
            stroke: "var(--good)",
            fill: "var(--paper)",
          }),
          Plot.dot(of("none"), { x: "i", y, r: 4 * small, symbol: "times", stroke: "var(--bad)" }),
          Plot.tip(
            rows,
            Plot.pointer({
              x: "i",
              y,
              title: (row) => tip(row.value),
              lineHeight: 1.3,
              fill: "var(--raised)",
              stroke: "var(--line)",
            }),
          ),
        ],
      });
    return element(
      "figure",
      {},
      plot(draw, "Signal-to-noise ratios of the values, in the order of the graph"),
      element(
        "figcaption",
        { class: "faint" },
        `Each value of A and its like in B. Dashed: ${threshold} dB.`,
        has("none") ? " None: A has no signal, or something is not finite." : "",
      ),
    );
  };

  /** A figure of both models: two bars, the longer one as long as there is room. */
  const pair = ({ title, a, b, show }) => {
    const most = Math.max(a ?? 0, b ?? 0);
    const bar = (side, value) => {
      const filled = element("span", { class: side });
      filled.style.width = most > 0 && value !== null ? `${(100 * value) / most}%` : "0";
      return [
        element("span", { class: "side" }, side.toUpperCase()),
        element("span", { class: "bar", "aria-hidden": "true" }, filled),
        element("span", { class: "amount" }, value === null ? "not known" : show(value)),
      ];
    };
    const change = a > 0 && b !== null ? `B by A: ${Number((b / a).toPrecision(3))}` : "";
    return element(
      "div",
      { class: "pair" },
      element("div", { class: "title" }, element("span", {}, title), element("span", { class: "faint" }, change)),
      element("div", { class: "bars" }, bar("a", a), bar("b", b)),
    );
  };

  return { pair, ratio, ratios };
})();
