"use strict";

// What adder-quantize found, drawn from its JSON: each node's range, bits and noise.
{
  const { data, element, name, section, figures, table, percent, show } = adder;
  const { bars } = plots;

  const number = (value, digits = 4) =>
    value === null || value === undefined ? "–" : String(Number(value.toPrecision(digits)));
  const count = (value) => value.toLocaleString("en");
  const decibels = ({ snr_db, snr_kind }) =>
    snr_kind === "ratio" ? `${snr_db.toFixed(1)} dB` : snr_kind;

  // A ratio without an end is no length: what is exact is an outline, what has no signal nothing.
  const ratio = ({ snr_db, snr_kind }) => {
    if (snr_kind === "exact") return [{ from: 0, to: Infinity, open: true }];
    return snr_kind === "ratio" ? [{ from: 0, to: snr_db }] : [];
  };
  const asNumber = ({ snr_db, snr_kind }) =>
    snr_kind === "exact" ? Infinity : snr_kind === "no signal" ? -Infinity : snr_db;

  const nodes = data.nodes;
  const own = new Map(data.sensitivity.map((entry) => [entry.name, entry]));
  const widths = [...new Set(nodes.map(({ bits }) => bits))].sort((a, b) => a - b);

  const lost = () => {
    if (!data.loss) return [];
    const what = data.loss.labelled ? "accuracy lost" : "answers changed";
    const most = `at most ${number(data.max_loss)} % allowed`;
    return [
      [`${what} on ${count(data.loss.images)} images`, `${data.loss.percent.toFixed(2)} %, ${most}`],
      ["bits on average", d3.mean(nodes, ({ bits }) => bits)?.toFixed(2)],
    ];
  };

  show(
    element("h1", {}, name(data.output, 200)),
    element(
      "p",
      { class: "faint" },
      "Quantized from ",
      name(data.model, 200),
      ` on ${count(data.samples)} images, calibration ${data.calibration}.`,
    ),
    figures([
      ["nodes quantized", count(nodes.length)],
      ["left in float", count(data.left.length)],
      ["bits", data.bits === "auto" ? `auto: ${widths.join(", ")}` : String(data.bits)],
      ...(data.levels === undefined ? [] : [["levels of inputs", String(data.levels)]]),
      ...lost(),
      ["bytes before", count(data.bytes_before)],
      ["bytes after", count(data.bytes_after)],
      ["of before", percent(data.bytes_after / data.bytes_before)],
    ]),
  );

  const ofNodes = (label, options) => bars(nodes, { label, name: (node) => node.name, ...options });

  const ranges = () =>
    section(
      "Range of the input",
      element("p", { class: "faint" }, "What the integers stand for, in the order of the graph."),
      ofNodes("Range of each node's input", {
        parts: ({ low, high }) => (low === null || high === null ? [] : [{ from: low, to: high }]),
        text: ({ low, high }) => `${number(low, 3)} … ${number(high, 3)}`,
        tip: ({ low, high }) => `${number(low)} … ${number(high)}`,
      }),
    );

  const noise = () =>
    section(
      "Signal-to-noise ratio of the output",
      element(
        "p",
        { class: "faint" },
        "In decibels, with all nodes quantized. Dashed: exact, without any noise.",
      ),
      ofNodes("Signal-to-noise ratio of each node's output, in decibels", {
        parts: ratio,
        text: decibels,
      }),
    );

  const clamped = () =>
    section(
      "Clamped weights",
      element(
        "p",
        { class: "faint" },
        "Share of the weights beyond the range. What that changes is a constant, which is added " +
          "to the bias: nothing is lost.",
      ),
      ofNodes("Share of each node's weights that are clamped", {
        parts: (node) => [{ from: 0, to: node.clamped }],
        text: (node) => percent(node.clamped),
        ticks: (value) => `${+(100 * value).toPrecision(3)} %`,
      }),
    );

  const bits = () =>
    widths.length < 2
      ? null
      : section(
          "Bits",
          element("p", { class: "faint" }, "Of the input and the weights, chosen for each node."),
          ofNodes("Bits of each node", {
            parts: (node) => [{ from: 0, to: node.bits }],
            text: (node) => String(node.bits),
            ticks: (value) => (Number.isInteger(value) ? String(value) : ""),
          }),
        );

  const alone = () => {
    const order = [...data.sensitivity].sort((a, b) => d3.ascending(asNumber(a), asNumber(b)));
    const options = { name: (entry) => entry.name };
    return section(
      "Sensitivity: each node quantized alone",
      element("p", { class: "faint" }, "What that does to the model's output, worst first."),
      element(
        "div",
        { class: "side-by-side" },
        element(
          "div",
          {},
          element("h3", {}, "Signal-to-noise ratio of the output in decibels"),
          bars(order, {
            ...options,
            label: "Signal-to-noise ratio of the output with each node quantized alone",
            parts: ratio,
            text: decibels,
          }),
        ),
        element(
          "div",
          {},
          element("h3", {}, "Answers that change"),
          order.every(({ changed }) => changed === 0)
            ? element("p", { class: "faint" }, "No node alone changes any.")
            : bars(order, {
                ...options,
                label: "Share of answers that change with each node quantized alone",
                parts: (entry) => [{ from: 0, to: entry.changed }],
                text: (entry) => percent(entry.changed),
                ticks: (value) => `${+(100 * value).toPrecision(3)} %`,
              }),
        ),
      ),
    );
  };

  const all = () => {
    const rows = nodes.map((node, i) => ({ ...node, i: i + 1, alone: own.get(node.name) }));
    const columns = [
      { title: "#", value: (row) => row.i, number: true },
      { title: "node", value: (row) => row.name, show: (row) => name(row.name) },
      { title: "bits", value: (row) => row.bits, number: true },
      { title: "low", value: (row) => row.low, show: (row) => number(row.low), number: true },
      { title: "high", value: (row) => row.high, show: (row) => number(row.high), number: true },
      {
        title: "clamped weights",
        value: (row) => row.clamped,
        show: (row) => percent(row.clamped),
        number: true,
      },
      { title: "SNR of its output", value: asNumber, show: decibels, number: true },
    ];
    if (nodes.some(({ levels }) => levels)) {
      columns.splice(3, 0, {
        title: "levels of its input",
        value: ({ levels }) => levels?.length,
        show: ({ levels }) => levels?.join(" "),
      });
    }
    if (own.size > 0) {
      columns.push(
        {
          title: "SNR if alone",
          value: (row) => row.alone && asNumber(row.alone),
          show: (row) => row.alone && decibels(row.alone),
          number: true,
        },
        {
          title: "answers changed if alone",
          value: (row) => row.alone?.changed,
          show: (row) => percent(row.alone?.changed),
          number: true,
        },
      );
    }
    return section("All nodes", table(columns, rows, { label: "All nodes" }));
  };

  const left = () =>
    section(
      "Left in float",
      table(
        [{ title: "node", value: (row) => row.name, show: (row) => name(row.name) }],
        data.left.map((name) => ({ name })),
        { label: "Nodes left in float" },
      ),
    );

  if (nodes.length > 0) {
    show(element("div", { class: "side-by-side" }, ranges(), noise(), clamped(), bits()));
    if (own.size > 0) show(alone());
    show(all());
  }
  if (data.left.length > 0) show(left());
}
