"use strict";

/**
 * What is drawn, from the JSON: a box for each node with what is fused into it, for each conversion,
 * and for each input and output of the model; and the values between them.
 */
const makeGraph = (data) => {
  const boxes = [];
  const boxOfNode = new Map();
  const stepOf = (number) => data.plan[number] ?? null;
  const isChain = (number) => stepOf(number)?.kind === "chain";

  const add = (box) => {
    boxes.push({ id: boxes.length, nodes: [], from: [], to: [], ...box });
    return boxes.at(-1);
  };

  const inputs = data.inputs.map((value) => add({ kind: "input", value, title: value.name, step: null }));
  const conversions = data.plan
    .filter((step) => step.kind === "conversion")
    .map((step) => add({ kind: "conversion", plan: step, title: step.layout, step: step.step }));
  for (const box of conversions) {
    for (const name of box.plan.nodes) boxOfNode.set(name, box);
  }

  const byName = new Map(data.nodes.map((node) => [node.name, node]));
  for (const node of data.nodes) {
    const host = boxOfNode.get(node.name);
    if (host) host.nodes.push(node);
    else if (node.fused_into === null) {
      const kind = node.is_adder ? "adder" : isChain(node.step) ? "pool" : "standard";
      boxOfNode.set(node.name, add({ kind, title: node.name, node, nodes: [node], step: node.step }));
    }
  }
  for (const node of data.nodes) {
    if (node.fused_into === null) continue;
    const host = boxOfNode.get(node.fused_into);
    host.nodes.push(node);
    boxOfNode.set(node.name, host);
  }
  const outputs = data.outputs.map((value) => add({ kind: "output", value, title: value.name, step: null }));

  // Who gives a value, inside chains and outside of them; a conversion carries it across.
  const outside = new Map(data.inputs.map((value, i) => [value.name, inputs[i]]));
  const inside = new Map();
  for (const node of data.nodes) {
    const box = boxOfNode.get(node.name);
    const place = isChain(box.step) ? inside : outside;
    for (const value of node.outputs) if (value.name) place.set(value.name, box);
  }
  for (const box of conversions) {
    const [from, to] = [box.plan.inputs[0], box.plan.outputs[0]];
    const entering = box.plan.layout.endsWith("NHWC");
    box.source = { name: from, place: entering ? outside : inside };
    (entering ? inside : outside).set(to, box);
  }

  const edges = new Map();
  const join = (from, to, value) => {
    if (!from || from === to) return;
    const key = `${from.id} ${to.id}`;
    if (!edges.has(key)) {
      edges.set(key, { from, to, values: [] });
      from.to.push(to);
      to.from.push(from);
    }
    edges.get(key).values.push(value);
  };
  for (const box of conversions) join(box.source.place.get(box.source.name), box, box.source.name);
  for (const box of boxes) {
    if (box.kind === "conversion") continue;
    const [first, second] = isChain(box.step) ? [inside, outside] : [outside, inside];
    for (const node of box.nodes) {
      for (const name of node.inputs) if (name) join(first.get(name) ?? second.get(name), box, name);
    }
    if (box.kind === "output") join(outside.get(box.value.name) ?? inside.get(box.value.name), box, box.value.name);
  }
  return { boxes, edges: [...edges.values()], boxOfNode, byName, order: sorted(boxes) };
};

/**
 * Boxes after all that feed them, and otherwise as the model lists them; what nothing feeds comes
 * right before what it feeds first.
 */
const sorted = (boxes) => {
  const left = new Map(boxes.map((box) => [box, box.from.length]));
  const ready = boxes.filter((box) => box.from.length === 0).reverse();
  const order = boxes.filter((box) => box.from.length === 0 && box.to.length === 0);
  const placed = new Set();
  const isSource = (box) => box.from.length === 0;
  while (ready.length) {
    const box = ready.pop();
    if (box.from.length) order.push(...box.from.filter(isSource).filter((from) => !placed.has(from)));
    for (const from of box.from) placed.add(from);
    if (!isSource(box)) order.push(box);
    for (const next of [...box.to].reverse()) {
      left.set(next, left.get(next) - 1);
      if (left.get(next) === 0) ready.push(next);
    }
  }
  return order;
};
