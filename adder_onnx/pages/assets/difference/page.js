"use strict";

{
  const { data, element, figures, name, section, show, si, table } = adder;
  const { pair, ratio, ratios } = differencePlots;
  const { values } = data;

  const operator = (op) => op.split(".").at(-1);
  const number = (value) => (value === null ? null : Number(value.toPrecision(3)));
  const share = (value) => (value === null ? "–" : `${number(100 * value)} %`);
  const decibels = (value) => (value === null ? "–" : `${(Math.round(10 * value) / 10 || 0).toFixed(1)} dB`);
  const maybe = (text) => (text === null || text === "" ? "–" : name(text));
  const text = (title, value, { show = (row) => maybe(value(row)) } = {}) => ({ title, value, show });

  /** By what a ratio sorts: identical values are the best. */
  const order = (value) => {
    if (value.identical) return Infinity;
    return value.not_finite > 0 || value.snr_db === null ? -Infinity : value.snr_db;
  };

  const ratioColumns = [
    { title: "SNR", number: true, value: order, show: ratio },
    { title: "largest difference", number: true, value: (v) => v.largest_difference, show: (v) => (v.identical ? "–" : number(v.largest_difference)) },
    { title: "of the largest value", number: true, value: (v) => v.relative_difference, show: (v) => (v.identical ? "–" : share(v.relative_difference)) },
  ];

  const heading = () => {
    const out = values?.outputs[0];
    return [
      element("h1", {}, data.equal ? "No difference" : "How two models differ"),
      element("p", {}, "A: ", name(data.a, 120), element("br"), "B: ", name(data.b, 120)),
      figures([
        ["nodes matched", String(data.matched)],
        ["of them differ", String(data.changed.length)],
        ["of other names", data.renamed.length > 0 ? String(data.renamed.length) : null],
        ["only in A", String(data.only_a.length)],
        ["only in B", String(data.only_b.length)],
        ["SNR of the output", out ? ratio(out) : null],
        ["same answers", out && out.same_answers !== null ? adder.percent(out.same_answers) : null],
      ]),
    ];
  };

  const findings = () => {
    const line = (said, value, more) =>
      element("li", {}, `${said} `, value === null ? "none" : name(value.a), value === null ? "" : more(value));
    const at = (value) => `, ${ratio(value)}`;
    return element(
      "ul",
      { class: "findings" },
      line("The first value that differs:", values.first_difference, at),
      line(`The first below ${values.threshold_db} dB:`, values.first_below, at),
      line("The largest drop:", values.largest_drop, (value) => `, by ${decibels(value.drop_db)}`),
    );
  };

  const on = () => {
    const { dataset, images, preprocessing } = data.data;
    const how = preprocessing === null ? "" : `, preprocessed as ${preprocessing.of} says`;
    return element("p", { class: "faint" }, `Both models ran on ${images} images, `, name(dataset), `${how}, on ${values.device}.`);
  };

  const valuesTable = () =>
    table(
      [
        { title: "#", number: true, value: (row) => row.place },
        text("value of A", (row) => row.a),
        text("of B", (row) => row.b, { show: (row) => (row.a === row.b ? "same" : name(row.b)) }),
        text("operator", (row) => operator(row.op)),
        ratioColumns[0],
        { title: "drop", number: true, value: (row) => row.drop_db, show: (row) => decibels(row.drop_db) },
        ...ratioColumns.slice(1),
      ],
      values.values.map((value, i) => ({ ...value, place: i + 1 })),
      { label: "Values" },
    );

  const outputsTable = () =>
    table(
      [
        text("output of A", (row) => row.a),
        text("of B", (row) => row.b, { show: (row) => (row.a === row.b ? "same" : name(row.b)) }),
        ...ratioColumns,
        { title: "same answers", number: true, value: (row) => row.same_answers, show: (row) => adder.percent(row.same_answers) },
      ],
      values.outputs,
      { label: "Outputs" },
    );

  const skipped = () =>
    values.skipped.length === 0
      ? null
      : section(
          "Values that were not compared",
          table(
            [text("value of A", (row) => row.a), text("of B", (row) => row.b), text("why", (row) => row.why)],
            values.skipped,
            { label: "Values that were not compared" },
          ),
        );

  const cost = () => {
    const { a, b } = data.cost;
    const count = (title, key) => ({ title, a: a[key], b: b[key], show: si });
    const bytes = (title, key) => ({ title, a: a[key], b: b[key], show: (value) => si(value, "B") });
    const pairs = [
      count("taps", "taps"),
      count("multiply-accumulates", "macs"),
      count("additions", "adds"),
      count("multiplications", "multiplications"),
      count("other operations", "other_operations"),
      count("nodes", "nodes"),
      count("parameters", "parameters"),
      bytes("weights", "weight_bytes"),
      bytes("activations", "activation_bytes"),
      bytes("file", "file_bytes"),
    ].filter(({ a, b }) => a || b);
    const assumed = Object.entries(data.assumes).map(([key, value]) => `${adder.shorten(key, 30)} = ${value}`);
    return section(
      "Cost",
      assumed.length > 0 ? element("p", { class: "faint" }, `for ${assumed.slice(0, 8).join(", ")}`) : null,
      element("div", { class: "pairs" }, pairs.map(pair)),
    );
  };

  const operators = () => {
    const { a, b } = data.cost;
    const names = [...new Set([...Object.keys(a.operators), ...Object.keys(b.operators)])];
    const rows = names.map((op) => ({ op, a: a.operators[op] ?? 0, b: b.operators[op] ?? 0 }));
    return section(
      "Operators",
      table(
        [
          text("operator", (row) => row.op),
          { title: "nodes of A", number: true, value: (row) => row.a },
          { title: "nodes of B", number: true, value: (row) => row.b },
          { title: "more in B", number: true, value: (row) => row.b - row.a },
        ],
        rows,
        { label: "Operators" },
      ),
    );
  };

  const shown = (value) => (value === null ? "–" : typeof value === "string" ? value : JSON.stringify(value));

  const source = (from) => {
    if (from === null) return "–";
    if (from.is_constant) return `a constant, ${from.value}`;
    return from.node === null ? `input ${from.value}` : from.node;
  };

  const stored = (type, shape) => (shape === null ? "–" : `${type} ${shape.join(" x ") || "scalar"}`);

  /** A row for each thing in which a node differs. */
  const differences = (node) => {
    const row = (what, a, b, difference = "", size = null) => ({ node: node.a, what, a, b, difference, size });
    const distance = ({ largest, relative, clamped, largest_inside: inside }) => {
      if (largest === null) return "cannot be compared";
      if (!clamped) {
        return `at most ${number(largest)}${relative === null ? "" : `, ${share(relative)} of the largest value`}`;
      }
      const others = inside === null ? "" : `, others by at most ${number(inside)}`;
      return `${adder.percent(clamped)} clamped, by at most ${number(largest)}${others}`;
    };
    return [
      ...(node.op_a === node.op_b ? [] : [row("operator", operator(node.op_a), operator(node.op_b))]),
      ...node.attributes.map((found) => row(found.name, shown(found.a), shown(found.b), found.note)),
      ...node.feeds.map((found) => row(`input ${found.input}`, source(found.a), source(found.b), "comes from elsewhere")),
      ...node.weights.map((found) =>
        row(found.input, stored(found.type_a, found.shape_a), stored(found.type_b, found.shape_b), distance(found), found.relative),
      ),
    ];
  };

  const changed = () =>
    data.changed.length === 0
      ? null
      : section(
          "Nodes that differ",
          table(
            [
              text("node", (row) => row.node),
              text("what", (row) => row.what),
              text("A", (row) => row.a),
              text("B", (row) => row.b),
              { title: "difference", value: (row) => row.size ?? row.difference, show: (row) => row.difference || "–" },
            ],
            data.changed.flatMap(differences),
            { label: "Nodes that differ" },
          ),
        );

  const lone = (title, nodes) =>
    nodes.length === 0
      ? null
      : section(
          title,
          table(
            [
              text("node", (row) => row.name),
              text("operator", (row) => operator(row.op)),
              text("fused into", (row) => row.fused_into),
            ],
            nodes,
            { label: title },
          ),
        );

  const renamed = () =>
    data.renamed.length === 0
      ? null
      : section(
          "Nodes of other names",
          table(
            [text("in A", (row) => row.a), text("in B", (row) => row.b), text("matched by", (row) => row.matched_by)],
            data.renamed,
            { label: "Nodes of other names" },
          ),
        );

  const model = () =>
    data.model.length === 0
      ? null
      : section(
          "What the models say of themselves",
          table(
            [
              text("what", (row) => row.what),
              text("name", (row) => row.name),
              text("A", (row) => row.a),
              text("B", (row) => row.b),
            ],
            data.model,
            { label: "What the models say of themselves" },
          ),
        );

  show(
    heading(),
    values
      ? [
          section("Values along the graph", on(), findings(), ratios(values.values, values.threshold_db), valuesTable()),
          section("Outputs", outputsTable()),
          skipped(),
        ].filter(Boolean)
      : [],
    cost(),
    operators(),
    ...[changed(), lone("Only in A", data.only_a), lone("Only in B", data.only_b), renamed(), model()].filter(Boolean),
  );
}
