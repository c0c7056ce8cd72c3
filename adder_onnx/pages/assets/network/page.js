"use strict";

// The page of adder-inspect: figures, drawing and panel, plots, table.
{
  const { data, element, show, section, figures, table, name, si, seconds, percent } = adder;
  const colors = colorsOf(data.plan);
  const graph = makeGraph(data);
  const panel = makePanel(data);
  const drawing = makeDrawing(graph, colors, { onchoose: panel.show });

  const chooseNode = (node, { scroll = false } = {}) => {
    const box = graph.boxOfNode.get(node);
    if (!box || box.x === undefined) return;
    drawing.choose(box, { move: true, node: graph.byName.get(node) });
    if (scroll) drawing.place.scrollIntoView({ block: "center" });
  };

  // Search: a node, by a part of its name or its operator.
  const MOST = 30;
  const found = element("div", { class: "found", role: "group", "aria-label": "nodes that were found" });
  // What is called so comes first, then what begins so.
  const rank = (node, text) => {
    const own = node.name.toLowerCase();
    if (own === text) return 0;
    if (own.startsWith(text)) return 1;
    return own.includes(text) ? 2 : node.op.toLowerCase().includes(text) ? 3 : null;
  };
  const search = () => {
    const text = field.value.trim().toLowerCase();
    const ranked = text ? data.nodes.map((node) => [rank(node, text), node]) : [];
    const hits = d3
      .sort(ranked.filter(([place]) => place !== null), ([place]) => place)
      .map(([, node]) => node);
    found.replaceChildren(
      ...hits.slice(0, MOST).map((node) =>
        element("button", { type: "button", onclick: () => chooseNode(node.name) }, name(node.name, 40)),
      ),
      text ? element("span", { class: "faint" }, hits.length > MOST ? `and ${hits.length - MOST} more` : hits.length ? "" : "no such node") : "",
    );
    return hits;
  };
  const field = element("input", {
    type: "search", placeholder: "Search a node or operator", "aria-label": "search", oninput: search,
    onkeydown: (event) => {
      if (event.key === "Enter") {
        const [first] = search();
        if (first) chooseNode(first.name);
      }
    },
  });

  const STEPS = { onnxruntime: "sub-model in onnxruntime", conversion: "conversion", chain: "chain of adder nodes" };
  const stepText = (step) => {
    const nodes = step.nodes.length;
    return step.kind === "conversion"
      ? `${step.step} conversion, ${step.layout}`
      : `${step.step} ${STEPS[step.kind]}, ${nodes} node${nodes === 1 ? "" : "s"}`;
  };
  const legend = element(
    "div", { class: "steps", role: "group", "aria-label": "steps of the plan" },
    data.plan.map((step) =>
      element(
        "button",
        { type: "button", onclick: () => drawing.fit(graph.boxes.filter((box) => box.step === step.step)) },
        element("span", { class: "swatch", style: `background: ${colors[step.step]}` }),
        stepText(step),
      ),
    ),
  );

  const { totals, profile } = data;
  const arithmetic = data.nodes.some((node) => node.integers !== null) ? "int8" : "float32";
  const energy = data.energy_microjoules[arithmetic];
  const assumed = Object.entries(data.assumes).map(([dim, number]) => `${dim} = ${number}`).join(", ");
  show(
    element("h1", {}, name(data.model, 200)),
    element("p", { class: "faint" }, data.metadata["ai.addernet.architecture"] ? name(data.metadata["ai.addernet.architecture"], 80) : null, `${data.metadata["ai.addernet.architecture"] ? "; " : ""}plan for ${data.device}, opset ${data.opset}${assumed ? "; assumes " : ""}`, assumed ? name(assumed, 200) : null),
    figures([
      ["nodes", totals.nodes.toLocaleString("en-US")],
      ["adder nodes", totals.adder_nodes.toLocaleString("en-US")],
      ["taps", si(totals.taps)],
      ["multiplications", si(totals.multiplications)],
      ["parameters", si(totals.parameters)],
      ["file", si(data.file_bytes, "B")],
      [`energy beside the twin, ${arithmetic}`, energy.twin > 0 ? percent(energy.model / energy.twin) : null],
      ["time of a run", profile ? seconds(profile.plain_run_seconds.median) : null],
      ["not counted", totals.not_counted.length ? `${totals.not_counted.length} nodes` : null],
    ]),
    section(
      "The graph",
      element("div", { class: "tools" }, field, drawing.buttons),
      found,
      element("div", { class: "graph", "aria-busy": "true" }, drawing.place, drawing.overview, panel.place),
      legend,
      element(
        "p", { class: "faint" },
        "Drag to move, pinch or Ctrl and the wheel to zoom. By keys: Tab into the graph, arrows along it, Enter for a node's figures, + and − to zoom.",
      ),
    ),
  );

  // The drawing grows piece by piece, so that a large network's page can be used at once.
  const busy = document.querySelector(".graph");
  const pieces = layout.place(graph, drawing.heightOf);
  let isFirst = true;
  const draw = () => {
    const until = performance.now() + 40;
    for (;;) {
      const { value, done } = pieces.next();
      if (done) break;
      drawing.add(value);
      if (isFirst) drawing.begin();
      isFirst = false;
      if (performance.now() > until) {
        drawing.update();
        setTimeout(draw);
        return;
      }
    }
    if (drawing.isMoved()) drawing.update();
    else drawing.begin();
    busy.removeAttribute("aria-busy");
  };

  const plots = makePlots(data, colors, { arithmetic, onchoose: (node) => chooseNode(node, { scroll: true }) });
  if (profile) show([plots.timeLine(), plots.roofline()].filter((part) => part !== null));
  else show(section("Time", element("p", {}, "How long nodes take is not known: adder-inspect --profile times them.")));
  show(plots.energy());

  const shape = (node) => node.outputs[0]?.assumed_shape?.map((dim) => dim ?? "?").join(" × ") ?? "";
  const number = (title, value, show = (node) => si(value(node))) => ({ title, value, show, number: true });
  const timed = profile
    ? [
        number("time", (node) => node.profile?.times.median, (node) => seconds(node.profile?.times.median)),
        number("share", (node) => node.profile?.share, (node) => percent(node.profile?.share)),
        number("of bound", (node) => node.profile?.share_of_bound, (node) => percent(node.profile?.share_of_bound)),
      ]
    : [];
  show(
    section(
      "All nodes",
      table(
        [
          number("#", (node) => node.index, (node) => node.index),
          { title: "node", value: (node) => node.name, show: (node) => name(node.name, 40) },
          { title: "operator", value: (node) => node.op, show: (node) => name(node.op.split(".").pop(), 30) },
          { title: "output", value: shape },
          number("step", (node) => node.step, (node) => (node.fused_into === null ? node.step : `${node.step} fused`)),
          ...timed,
          number("taps", (node) => node.taps),
          number("MACs", (node) => node.macs),
          number("parameters", (node) => node.parameters),
          number("bytes", (node) => (node.activation_bytes === null ? null : node.activation_bytes + node.weight_bytes)),
          number("taps/byte", (node) => node.taps_per_byte),
        ],
        data.nodes.map((node, index) => ({ ...node, index })),
        { onchoose: (node) => chooseNode(node.name, { scroll: true }), label: "all nodes", most: 300 },
      ),
    ),
  );
  draw();
}
