"use strict";

/** How boxes and edges look: near, with their text, and far, where there are many of them. */
const makeLook = (colors) => {
  const { svg, shorten } = adder;
  const TITLE = 24; // characters that fit into a box
  const LINE = 32;
  const FIRST = 19; // the base line of the first line, and what the others come below it
  const NEXT = 15;

  const shapeText = (box) => {
    const value = box.value ?? box.node?.outputs[0];
    const shape = value?.assumed_shape;
    return shape ? shape.map((dim) => dim ?? "?").join(" × ") || "scalar" : "";
  };

  const opText = (node) => node.op.split(".").pop();

  /** The lines of text of a box: what it is called, what it is, what is fused into it. */
  const linesOf = (box) => {
    if (box.kind === "input" || box.kind === "output") return [box.title, `${box.kind} ${shapeText(box)}`];
    if (box.kind === "conversion") {
      return [box.plan.layout, box.nodes.map(opText).join(", ") || `conversion, ${box.plan.type}`];
    }
    const fused = box.nodes.slice(1).map(opText);
    const lines = [box.title, opText(box.node), shapeText(box)];
    return box.kind === "adder" && fused.length ? [...lines, `+ ${fused.join(", ")}`] : lines;
  };

  const corner = (box) => [box.x - box.width / 2, box.y - box.height / 2];

  /** How high a box is. */
  const heightOf = (box) => FIRST + NEXT * (linesOf(box).length - 1) + 11;

  /** A box with its text, of which nothing leaves it; keys reach it where it is the entry. */
  const near = (box) => {
    const { width, height } = box;
    const [x, y] = corner(box);
    const lines = linesOf(box).map((text, i) => shorten(text, i ? LINE : TITLE));
    return svg(
      "svg",
      {
        class: `box ${box.kind}`,
        x, y, width, height,
        role: "button",
        tabindex: -1,
        "aria-label": lines.join(", "),
        style: box.step === null ? null : `--step: ${colors[box.step]}`,
      },
      svg("rect", { x: 1, y: 1, width: width - 2, height: height - 2, rx: box.kind === "conversion" ? 18 : box.node ? 5 : 23 }),
      lines.map((text, i) =>
        svg("text", { x: width / 2, y: FIRST + NEXT * i, class: i ? "faint" : "title", direction: "ltr" }, text),
      ),
    );
  };

  const line = d3.line().curve(d3.curveBasis);

  /** An edge. */
  const edge = ({ points }) => svg("path", { d: line(points), "marker-end": "url(#arrow)" });

  /** Many boxes and edges as few elements. */
  const far = (boxes, edges) => [
    svg("path", { class: "far-edges", d: edges.map(({ points }) => line(points)).join("") }),
    ...d3.map(
      d3.group(boxes, (box) => box.step, (box) => box.kind === "adder"),
      ([step, kinds]) =>
        d3.map(kinds, ([isAdder, own]) =>
          svg("path", {
            class: `box far-boxes ${isAdder ? "adder" : ""}`,
            style: step === null ? null : `--step: ${colors[step]}`,
            d: own.map((box) => `M${corner(box)}h${box.width}v${box.height}h${-box.width}z`).join(""),
          }),
        ),
    ),
  ];

  return { near, edge, far, line, heightOf };
};
