"use strict";

/** The plots of a network: the course of a run, its roofline, where the energy goes. */
const makePlots = (data, colors, { arithmetic, onchoose }) => {
  const { element, plot, seconds, si, shorten, section, percent } = adder;
  const STYLE = { background: "none", color: "inherit", fontSize: "12px", overflow: "visible" };

  const chosenOf = (chart, choose) => {
    chart.addEventListener("click", () => chart.value && choose(chart.value));
    return chart;
  };

  /** The last run that was timed: steps above, the adder nodes in them below. */
  const timeLine = () => {
    const { last_run: events, device, threads } = data.profile;
    const [top, unit] = d3.max(events, (e) => e.start + e.seconds) >= 1 ? [1, "s"] : [1e3, "ms"];
    const bars = events.map((event) => ({
      ...event,
      lane: event.node === null ? "steps" : "adder nodes",
      begin: event.start * top,
      end: (event.start + event.seconds) * top,
      what: event.node === null ? `step ${event.step}: ${data.plan[event.step].kind}` : shorten(event.node, 50),
    }));
    const lanes = ["steps", "adder nodes"].filter((lane) => bars.some((bar) => bar.lane === lane));
    const draw = (width) =>
      chosenOf(
        Plot.plot({
          width,
          height: 72 + 44 * lanes.length,
          marginLeft: 90,
          marginRight: 16,
          marginBottom: 42,
          style: STYLE,
          x: { label: `${unit} from the run's begin`, ticks: Math.max(3, Math.floor(width / 110)), nice: true },
          y: { label: null, domain: lanes },
          marks: [
            Plot.barX(bars, {
              y: "lane", x1: "begin", x2: "end",
              fill: (bar) => colors[bar.step],
              fillOpacity: (bar) => (bar.node === null ? 0.55 : 0.95),
              stroke: "var(--paper)", strokeWidth: 0.5, insetTop: 4, insetBottom: 4,
            }),
            Plot.tip(
              bars,
              Plot.pointerX({
                y: "lane", x1: "begin", x2: "end", maxRadius: Infinity, fill: "var(--raised)",
                title: (bar) => `${bar.what}\n${seconds(bar.seconds)}`,
              }),
            ),
          ],
        }),
        (bar) => bar.node !== null && onchoose(bar.node),
      );
    return section(
      "The course of a run",
      element("p", { class: "faint" }, `The last run that was timed, on ${device}, ${threads} thread${threads === 1 ? "" : "s"}.`),
      plot(draw, "bars of steps and adder nodes along the time of a run"),
    );
  };

  /** Taps per second by taps per byte, under what the inner loop and memory allow. */
  const roofline = () => {
    const { bound_taps_per_second: bounds, bound_bytes_per_second: bandwidth } = data.profile;
    const dots = data.nodes
      .filter((node) => node.profile?.taps_per_second && node.taps_per_byte)
      .map((node) => ({
        node, x: node.taps_per_byte, y: node.profile.taps_per_second,
        type: node.profile.type, step: node.step,
      }));
    if (!dots.length) return null;
    const types = Object.keys(bounds).filter((type) => bounds[type]);
    const [low, high] = d3.extent(dots, (dot) => dot.x);
    const ridges = types.map((type) => bounds[type] / bandwidth);
    const [left, right] = [Math.min(low, ...ridges) / 2, Math.max(high, ...ridges) * 2];
    const roofs = types.flatMap((type) =>
      [left, bounds[type] / bandwidth, right].map((x) => ({ type, x, y: Math.min(bandwidth * x, bounds[type]) })),
    );
    const bottom = Math.min(d3.min(dots, (dot) => dot.y), bandwidth * left) / 1.5;
    const draw = (width) =>
      chosenOf(
        Plot.plot({
          width,
          height: Math.min(420, Math.max(280, width * 0.5)),
          marginLeft: 52,
          marginBottom: 40,
          marginTop: 26,
          style: STYLE,
          grid: true,
          x: { type: "log", domain: [left, right], label: "taps per byte", ticks: 4, tickFormat: (x) => si(x) },
          y: {
            type: "log", label: "taps/s", ticks: 5, tickFormat: (y) => si(y),
            domain: [bottom, 1.4 * Math.max(...types.map((type) => bounds[type]), d3.max(dots, (dot) => dot.y))],
          },
          marks: [
            Plot.line(roofs, { x: "x", y: "y", z: "type", stroke: "var(--faint)", strokeWidth: 1.5, clip: true }),
            Plot.dot(dots, { x: "x", y: "y", fill: (dot) => colors[dot.step], stroke: "var(--paper)", r: 5 }),
            Plot.tip(
              dots,
              Plot.pointer({
                x: "x", y: "y", fill: "var(--raised)",
                title: (dot) =>
                  `${shorten(dot.node.name, 50)}\n${si(dot.y)} taps/s, ${percent(dot.node.profile.share_of_bound)} of the bound\n` +
                  `${si(dot.x)} taps per byte`,
              }),
            ),
          ],
        }),
        (dot) => onchoose(dot.node.name),
      );
    const bound = types.map((type) => `${si(bounds[type])} taps/s in ${type}`).join(", ");
    return section(
      "Roofline",
      element(
        "p", { class: "faint" },
        `A dot is an adder node, what is fused into it included. Above stands what the bare inner loop reaches ` +
          `(${bound}), to the left what memory gives (${si(bandwidth, "B/s")}). Tensors that stay in a cache ` +
          `may lie above memory's line.`,
      ),
      plot(draw, "a dot for each adder node: taps per second by taps per byte, under the machine's bounds"),
    );
  };

  /** Additions' and multiplications' energy, by operator, beside the convolutional twin's. */
  const energy = () => {
    const choice = element(
      "select", { "aria-label": "type of the arithmetic" },
      Object.keys(data.energy_microjoules).map((type) =>
        element("option", { value: type, selected: type === arithmetic }, type),
      ),
    );
    const place = element("div");
    const update = () => {
      const type = choice.value;
      const operators = data.operators.filter((row) => row.energy_microjoules[type].twin > 0);
      const bars = ["model", "twin"].flatMap((which) =>
        operators.map((row) => ({
          which: which === "model" ? "this model" : "its twin",
          op: row.op.split(".").pop(),
          microjoules: row.energy_microjoules[type][which],
        })),
      );
      const { model, twin } = data.energy_microjoules[type];
      const ops = [...new Set(bars.map((bar) => bar.op))];
      const draw = (width) =>
        Plot.plot({
          width,
          height: 150,
          marginLeft: 80,
          marginRight: 20,
          marginBottom: 42,
          style: STYLE,
          x: { label: "µJ for a run", ticks: Math.max(3, Math.floor(width / 110)), tickFormat: (x) => si(x) },
          y: { label: null, domain: ["this model", "its twin"] },
          color: { domain: ops, range: ops.map((_, i) => d3.schemeTableau10[i % 10]) },
          marks: [
            Plot.barX(bars, { y: "which", x: "microjoules", fill: "op", order: ops, tip: true }),
            Plot.ruleX([0]),
          ],
        });
      const legend = element(
        "ul", { class: "legend" },
        ops.map((op, i) =>
          element("li", {}, element("span", { class: "swatch", style: `background: ${d3.schemeTableau10[i % 10]}` }), shorten(op, 30)),
        ),
      );
      const less = twin > 0 ? ` ${percent(model / twin)} of that` : "";
      place.replaceChildren(
        element("p", {}, `${si(model)} µJ; the convolutional twin ${si(twin)} µJ.`, less && ` The model takes${less}.`),
        plot(draw, "energy by operator, of the model and of its convolutional twin"),
        legend,
      );
    };
    choice.addEventListener("change", update);
    update();
    return section(
      "Where the energy goes",
      element(
        "p", { class: "faint" },
        "Additions and multiplications in a 45 nm process (Horowitz, ISSCC 2014), all of them in ", choice,
        "; memory is not in it. The twin is the same network with a multiply-accumulate for each tap.",
      ),
      place,
    );
  };

  return { timeLine, roofline, energy };
};
