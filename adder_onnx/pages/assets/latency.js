"use strict";

// What adder-bench found, drawn from its JSON: rates, where the time goes, histograms of latencies.
{
  const { data, element, name, section, figures, table, percent, plot, show } = adder;
  const { bars, legend, widthOf } = plots;

  const results = data.results;
  const models = [...d3.group(results, ({ model }) => model)];
  const manyThreads = new Set(results.map(({ threads }) => threads)).size > 1;

  const count = (value) => value.toLocaleString("en");
  const digits = (value, most = 4) => String(Number(value.toPrecision(most)));
  const rate = (value) => (value < 1000 ? digits(value) : count(Math.round(value)));

  /** What a measurement is of, beside the model. */
  const setting = ({ batch_size, threads, device }) =>
    [
      `batch ${batch_size}`,
      device === "cpu" || manyThreads ? `${threads} thread${threads === 1 ? "" : "s"}` : null,
      device === "cpu" ? null : device,
    ]
      .filter((part) => part !== null)
      .join(", ");

  /** One of something for each model, side by side; with its name where there are several. */
  const byModel = (make) =>
    element(
      "div",
      { class: "side-by-side" },
      models.map(([model, own]) =>
        element("div", {}, models.length > 1 ? element("h3", {}, name(model)) : null, make(own, model)),
      ),
    );

  const rates = () => {
    const most = d3.max(results, ({ images_per_second }) => images_per_second);
    return section(
      "Images per second",
      byModel((own, model) =>
        bars(own, {
          label: `Images per second of ${model}`,
          name: setting,
          most,
          parts: ({ images_per_second }) => [{ from: 0, to: images_per_second }],
          text: ({ images_per_second }) => rate(images_per_second),
          ticks: d3.format("~s"),
        }),
      ),
    );
  };

  const KINDS = {
    chain: ["kernels of adder nodes", "var(--kernels)"],
    onnxruntime: ["onnxruntime", "var(--standard)"],
    conversion: ["conversions", "var(--conversion)"],
    overhead: ["Python and the rest", "var(--rest)"],
  };

  /** The steps of a run, with where each begins and ends as shares of all. */
  const stepsOf = ({ steps, runtime_overhead_ms }) => {
    const all = [...steps, { kind: "overhead", median_ms: Math.max(0, runtime_overhead_ms) }];
    const ends = d3.cumsum(all, ({ median_ms }) => median_ms);
    const total = ends[ends.length - 1] || 1;
    return all.map((step, i) => ({
      ...step,
      from: (i === 0 ? 0 : ends[i - 1]) / total,
      to: ends[i] / total,
    }));
  };

  const MOST_LINES = 12;

  const steps = () =>
    section(
      "Where the time goes",
      element("p", { class: "faint" }, "The steps of a run in their order, by their medians."),
      legend(Object.values(KINDS)),
      byModel((own, model) =>
        bars(own, {
          label: `Where the time of ${model} goes`,
          name: setting,
          most: 1,
          parts: (result) => stepsOf(result).map((step) => ({ ...step, fill: KINDS[step.kind][1] })),
          text: (result) => `${digits(d3.sum(stepsOf(result), ({ median_ms }) => median_ms), 3)} ms`,
          tip: (result) => {
            const lines = stepsOf(result).map(
              ({ kind, median_ms, from, to }) =>
                `${KINDS[kind][0]}: ${digits(median_ms, 3)} ms, ${percent(to - from)}`,
            );
            const left = lines.length - MOST_LINES;
            return [...lines.slice(0, MOST_LINES), ...(left > 0 ? [`and ${left} more`] : [])].join("\n");
          },
          ticks: (value) => `${Math.round(100 * value)} %`,
        }),
      ),
    );

  const HEIGHT = 190;
  const LINE = 15;

  /** A histogram, with the median and two percentiles marked; what is beyond is one more bar. */
  const histogram = (result) => (width) => {
    const { edges_ms: edges, counts, beyond, longest_ms } = result.histogram;
    const [low, high] = [edges[0], edges[edges.length - 1]];
    const bin = edges[1] - edges[0];
    const boxes = counts.map((runs, i) => ({ x1: edges[i], x2: edges[i + 1], runs, until: edges[i + 1] }));
    const last = { x1: high + bin, x2: high + 3 * bin, runs: beyond, until: longest_ms };
    const all = beyond > 0 ? [...boxes, { ...last, from: high, fill: "var(--focus)" }] : boxes;
    const marks = [
      ["median", result.median_ms],
      ["p90", result.p90_ms],
      ["p99", result.p99_ms],
    ].map(([what, x], i) => ({ text: `${what} ${digits(x)} ms`, x, up: (i - 3) * LINE }));
    const ticks = Math.max(2, Math.floor(width / 90));
    const top = 3 * LINE;
    const domain = [low, high + (beyond > 0 ? 3 * bin : 0)];
    const [left, right] = [44, 12];
    const room = ({ x }) => ((width - left - right) * (domain[1] - x)) / (domain[1] - low) + right;
    const mark = (mark) => {
      const end = widthOf(mark.text) + 6 > room(mark);
      return Plot.text([mark], {
        x: "x",
        text: "text",
        frameAnchor: "top",
        lineAnchor: "middle",
        textAnchor: end ? "end" : "start",
        dx: end ? -5 : 5,
        dy: mark.up + LINE / 2,
        stroke: "var(--paper)", // where it lies on another mark's line
        strokeWidth: 4,
        fill: "currentColor",
        className: "marks",
      });
    };
    return Plot.plot({
      width,
      height: HEIGHT + top,
      marginTop: top,
      marginLeft: left,
      marginRight: right,
      x: { domain, label: null },
      y: { label: null, grid: true, ticks: 4, tickFormat: d3.format("~s") },
      marks: [
        Plot.axisX(d3.ticks(low, high, ticks), { tickFormat: d3.tickFormat(low, high, ticks) }),
        Plot.rectY(all, {
          x1: "x1",
          x2: "x2",
          y: "runs",
          fill: (box) => box.fill ?? "var(--accent)",
          inset: 0.5,
        }),
        Plot.ruleY([0]),
        marks.map(({ x, up }) => Plot.ruleX([x], { strokeWidth: 1.5, insetTop: up })),
        marks.map(mark),
        Plot.tip(
          all,
          Plot.pointerX({
            x: (box) => (box.x1 + box.x2) / 2,
            y: "runs",
            lineHeight: 1.3,
            title: (box) => `${digits(box.from ?? box.x1)} … ${digits(box.until)} ms\n${count(box.runs)} runs`,
          }),
        ),
      ],
    });
  };

  const caption = ({ runs, histogram: { edges_ms, beyond, longest_ms } }) =>
    `${count(runs)} runs` +
    (beyond > 0
      ? `; the last bar has ${count(beyond)} beyond ${digits(edges_ms[edges_ms.length - 1])} ms, the ` +
        `longest of ${digits(longest_ms)} ms.`
      : ".");

  const latencies = () =>
    section(
      "Latency",
      element("p", { class: "faint" }, "How many runs took how many milliseconds."),
      models.map(([model, own]) => [
        models.length > 1 ? element("h3", {}, name(model)) : null,
        element(
          "div",
          { class: "side-by-side", style: "--least: 400px" },
          own.map((result) =>
            element(
              "figure",
              {},
              element("h4", {}, setting(result)),
              plot(histogram(result), `Latencies of ${model}, ${setting(result)}`),
              element("figcaption", {}, caption(result)),
            ),
          ),
        ),
      ]),
    );

  const number = (title, key, show = digits) => ({
    title,
    value: (row) => row[key],
    show: (row) => show(row[key]),
    number: true,
  });

  const all = () =>
    section(
      "All measurements",
      table(
        [
          { title: "model", value: (row) => row.model, show: (row) => name(row.model) },
          { title: "device", value: (row) => row.device },
          number("threads", "threads", String),
          number("batch", "batch_size", String),
          { title: "arithmetic", value: (row) => row.arithmetic },
          number("runs", "runs", count),
          number("median ms", "median_ms"),
          number("p90 ms", "p90_ms"),
          number("p99 ms", "p99_ms"),
          number("images/s", "images_per_second", rate),
        ],
        results,
        { label: "All measurements" },
      ),
    );

  const one = models.length === 1;
  show(
    element("h1", {}, one ? name(models[0][0], 200) : `Latency of ${models.length} models`),
    figures([
      ["CPU", data.cpu],
      ...Object.entries(data.gpus).map(([device, gpu]) => [device, gpu]),
      ...Object.entries(data.versions).map(([what, version]) => [what, version]),
    ]),
    one ? element("div", { class: "side-by-side" }, rates(), steps()) : [rates(), steps()],
    latencies(),
    all(),
  );
}
