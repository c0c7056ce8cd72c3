"use strict";

/** What is known of the chosen box: each of its nodes, with all figures of the JSON. */
const makePanel = (data) => {
  const { element, name, seconds, percent, si } = adder;
  const place = element("aside", { class: "panel", "aria-live": "polite", "aria-label": "the chosen node" });
  const values = new Map();
  for (const value of [...data.inputs, ...data.nodes.flatMap((n) => [...n.outputs, ...n.constants])]) {
    values.set(value.name, value);
  }

  const whole = (number) => (number === null || number === undefined ? null : number.toLocaleString("en-US"));
  const real = (number) => Number(number.toPrecision(4)).toString();
  const shape = (value) => {
    if (!value) return "";
    const dims = value.assumed_shape;
    return `${value.type || "?"} ${dims ? dims.map((dim) => dim ?? "?").join(" × ") || "scalar" : "of unknown rank"}`;
  };

  const rows = (pairs) =>
    element(
      "dl",
      { class: "rows" },
      pairs
        .filter(([, value]) => value !== null && value !== undefined && value !== "")
        .map(([term, value]) => [
          element("dt", {}, term instanceof Node ? term : String(term)),
          element("dd", {}, value instanceof Node ? value : String(value)),
        ]),
    );

  const valueRow = (label) => (text) =>
    [label, text && element("span", {}, name(text, 40), element("span", { class: "faint" }, ` ${shape(values.get(text))}`))];

  const attribute = (value) => {
    const item = (one) => (typeof one === "number" ? Number(one.toPrecision(7)) : one);
    return name(Array.isArray(value) ? value.map(item).join(", ") : String(item(value)), 80);
  };

  const range = ([low, high]) => `${real(low)} … ${real(high)}`;

  const integers = (found) =>
    found && [
      element("h4", {}, "Integers"),
      rows([
        ["bits", found.bits],
        ["output's levels", found.levels.join(", ")],
        ["input's range", range(found.input_range)],
        ["input's scale, zero point", `${real(found.input_scale)}, ${found.input_zero_point}`],
        ["output's range", range(found.output_range)],
        ["output's scale, zero point", `${real(found.output_scale)}, ${found.output_zero_point}`],
        ["weights at the range's ends", percent(found.weights_at_ends)],
      ]),
    ];

  const profile = (found) =>
    found && [
      element("h4", {}, "Time"),
      rows([
        ["median of a run", seconds(found.times.median)],
        ["p10 … p90", `${seconds(found.times.p10)} … ${seconds(found.times.p90)}`],
        ["share of the run", percent(found.share)],
        ["taps/s", found.taps_per_second && si(found.taps_per_second)],
        ["share of the bound", found.share_of_bound && percent(found.share_of_bound)],
      ]),
    ];

  const nodeParts = (node) => [
    element("h3", {}, name(node.name, 300)),
    element("p", { class: "faint" }, node.op, node.fused_into === null ? null : ", fused"),
    rows([
      ["step", `${node.step} (${data.plan[node.step].kind})`],
      ["fused into", node.fused_into && name(node.fused_into, 60)],
    ]),
    profile(node.profile),
    integers(node.integers),
    element("h4", {}, "Cost"),
    rows([
      ["not counted", node.why_not_counted],
      ["taps", whole(node.taps)],
      ["MACs", whole(node.macs)],
      ["additions", whole(node.adds)],
      ["multiplications", whole(node.multiplications)],
      ["other operations", whole(node.other_operations)],
      ["parameters", whole(node.parameters)],
      ["bytes of weights", whole(node.weight_bytes)],
      ["bytes of activations", whole(node.activation_bytes)],
      ["operations per byte", node.intensity === null ? null : real(node.intensity)],
      ["taps per byte", node.taps_per_byte === null ? null : real(node.taps_per_byte)],
    ]),
    Object.keys(node.attributes).length
      ? [
          element("h4", {}, "Attributes"),
          rows(Object.entries(node.attributes).map(([key, value]) => [name(key, 40), attribute(value)])),
        ]
      : null,
    element("h4", {}, "Values"),
    rows([
      ...node.inputs.map(valueRow("in")),
      ...node.outputs.map((value) => value.name).map(valueRow("out")),
    ]),
  ];

  const stepParts = (step) => [
    element("h3", {}, `Step ${step.step}: ${step.kind}`),
    rows([
      ["layout", step.layout],
      ["type", step.type],
      ["device", step.device],
      ...step.inputs.map(valueRow("in")),
      ...step.outputs.map(valueRow("out")),
      ["bytes", whole(step.bytes)],
    ]),
    profile(step.profile),
  ];

  const valueParts = (box) => [
    element("h3", {}, name(box.title, 300)),
    rows([[box.kind, shape(box.value)]]),
  ];

  /** Shows a box, and of its nodes the one that was asked for first. */
  const show = (box, node) => {
    const nodes = node === null ? [] : [node, ...box.nodes.filter((other) => other !== node)];
    const parts = [
      nodes.slice(0, 1).map(nodeParts),
      box.kind === "conversion" ? stepParts(box.plan) : null,
      box.value ? valueParts(box) : null,
    ];
    const others = nodes.slice(1).map((other) =>
      element("details", {}, element("summary", {}, other.op.split(".").pop(), " ", name(other.name, 40)), nodeParts(other)),
    );
    place.replaceChildren(element("div", {}, parts, others));
    place.scrollTop = 0;
  };

  place.append(element("p", { class: "faint" }, "Choose a node to see its figures."));
  return { place, show };
};
