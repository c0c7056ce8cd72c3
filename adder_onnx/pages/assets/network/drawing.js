"use strict";

/**
 * The drawing of a graph: one can zoom, move, and choose boxes by mouse, touch and keys.
 *
 * Only what is in sight is made into elements, and from far away few elements stand for many boxes, so
 * that a drawing of thousands of boxes costs little more than one of a hundred.
 */
const makeDrawing = (graph, colors, { onchoose }) => {
  const { svg, element } = adder;
  const READABLE = 0.45; // the scale below which boxes are far
  const LANDING = 0.9; // the least scale at which one box is looked at
  const MARGIN = 60; // around what is in sight

  const look = makeLook(colors);
  const far = svg("g", { class: "far" });
  const links = svg("g", { class: "links" });
  const boxes = svg("g", { class: "boxes" });
  const chosenEdges = svg("path", { class: "chosen-edges" });
  const frame = svg("rect", { class: "frame", rx: 6, visibility: "hidden" });
  const world = svg("g", {}, far, links, chosenEdges, boxes, frame);
  const arrow = svg(
    "marker",
    {
      id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 9, markerHeight: 9, orient: "auto",
      markerUnits: "userSpaceOnUse",
    },
    svg("path", { d: "M0,0L8,4L0,8z" }),
  );
  const canvas = svg(
    "svg",
    { class: "drawing", role: "group", "aria-label": "the graph, layer by layer" },
    svg("defs", {}, arrow),
    world,
  );

  const placedBoxes = [];
  const placedEdges = [];
  const extent = { left: Infinity, right: -Infinity, top: 0, bottom: 0 };
  const shown = new Map(); // the elements of the boxes and edges in sight
  let chosen = null;
  let moved = false; // by whoever looks at it
  let entry = null; // the box that the tabulator key comes to

  // What is in sight.
  const transform = () => d3.zoomTransform(canvas);
  const size = () => [canvas.clientWidth || 800, canvas.clientHeight || 600];
  const sight = () => {
    const { k, x, y } = transform();
    const [width, height] = size();
    return { left: -x / k, top: -y / k, right: (width - x) / k, bottom: (height - y) / k };
  };

  const update = () => {
    world.setAttribute("transform", transform());
    const isFar = transform().k < READABLE;
    far.style.display = isFar ? "" : "none";
    const { left, top, right, bottom } = sight();
    const isSeen = (one) =>
      !isFar && one.left < right + MARGIN && one.right > left - MARGIN &&
      one.top < bottom + MARGIN && one.bottom > top - MARGIN;
    for (const [one, made] of shown) {
      if (!isSeen(one) && made !== document.activeElement) {
        made.remove();
        shown.delete(one);
      }
    }
    for (const [all, parent, make] of [[placedBoxes, boxes, look.near], [placedEdges, links, look.edge]]) {
      for (const one of all) {
        if (!shown.has(one) && isSeen(one)) shown.set(one, parent.appendChild(make(one)));
      }
    }
    shown.get(entry)?.setAttribute("tabindex", 0);
    overview.draw();
  };

  // Zoom and movement; the wheel alone scrolls the page.
  const zoom = d3
    .zoom()
    .scaleExtent([0.002, 3])
    .filter((event) => (event.type === "wheel" ? event.ctrlKey || event.metaKey : !event.button))
    .on("zoom", (event) => {
      moved ||= event.sourceEvent !== null;
      update();
    });
  const selection = d3.select(canvas).call(zoom).on("dblclick.zoom", null);
  const view = (scale, { x, y }, [atX, atY]) =>
    selection.call(zoom.transform, d3.zoomIdentity.translate(atX, atY).scale(scale).translate(-x, -y));

  const goTo = (point, scale = transform().k) => {
    const [width, height] = size();
    view(scale, point, [width / 2, height / 2]);
  };
  const lookAt = (box) => goTo(box, Math.max(LANDING, transform().k));

  /** Shows boxes, as large as there is room for them. */
  const fit = (some) => {
    if (!some.length) return;
    const [width, height] = size();
    const [left, right] = [d3.min(some, (box) => box.left), d3.max(some, (box) => box.right)];
    const [top, bottom] = [d3.min(some, (box) => box.top), d3.max(some, (box) => box.bottom)];
    const scale = Math.min(1, (width - 40) / (right - left), (height - 40) / (bottom - top));
    goTo({ x: (left + right) / 2, y: (top + bottom) / 2 }, scale);
  };

  /** The top of the drawing, at a size that can be read. */
  const begin = () => {
    const [width] = size();
    const wide = extent.right - extent.left;
    const scale = Math.min(1, Math.max(READABLE + 0.1, (width - 40) / wide));
    const middle = scale * wide <= width ? (extent.left + extent.right) / 2 : graph.order[0].x;
    view(scale, { x: middle, y: 0 }, [width / 2, 16]);
  };

  const overview = makeOverview(colors, { boxes: () => placedBoxes, extent, sight, goTo });

  // Choosing.
  const setEntry = (box) => {
    shown.get(entry)?.setAttribute("tabindex", -1);
    entry = box;
    shown.get(entry)?.setAttribute("tabindex", 0);
  };

  /** Marks a box as chosen, and tells so; of its nodes one may be meant. */
  const choose = (box, { move = false, node = box.node ?? box.nodes[0] ?? null } = {}) => {
    moved = true;
    chosen = box;
    setEntry(box);
    for (const [key, value] of Object.entries({ x: box.left, y: box.top, width: box.width, height: box.height })) {
      frame.setAttribute(key, value);
    }
    frame.setAttribute("visibility", "visible");
    const own = placedEdges.filter(({ from, to }) => from === chosen || to === chosen);
    chosenEdges.setAttribute("d", own.map(({ points }) => look.line(points)).join(""));
    if (move) lookAt(box);
    onchoose(box, node);
  };

  canvas.addEventListener("click", (event) => {
    const [x, y] = d3.pointer(event, world);
    const hit = placedBoxes.find((box) => box.left <= x && x <= box.right && box.top <= y && y <= box.bottom);
    if (hit) choose(hit);
  });

  // Keys: along the edges, and to the side within a layer.
  const beside = (box, sign) =>
    d3.least(
      placedBoxes.filter((other) => Math.abs(other.y - box.y) < 30 && sign * (other.x - box.x) > 1),
      (other) => Math.abs(other.x - box.x),
    );
  const KEYS = {
    ArrowDown: (box) => box.to[0],
    ArrowUp: (box) => box.from[0],
    ArrowLeft: (box) => beside(box, -1),
    ArrowRight: (box) => beside(box, 1),
    Home: () => graph.order[0],
    End: () => graph.order.at(-1),
  };
  const larger = (factor) => selection.call(zoom.scaleBy, factor);
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "+" || event.key === "-") larger(event.key === "+" ? 1.3 : 1 / 1.3);
    else if (event.key === "Enter" || event.key === " ") choose(entry);
    else {
      const next = KEYS[event.key]?.(entry);
      if (next?.x === undefined) return;
      setEntry(next);
      lookAt(next);
      shown.get(next).focus({ preventScroll: true });
    }
    event.preventDefault();
  });

  /** Adds what a layout has placed. */
  const add = ({ boxes: more, edges }) => {
    for (const box of more) {
      const [w, h] = [box.width / 2, box.height / 2];
      Object.assign(box, { left: box.x - w, right: box.x + w, top: box.y - h, bottom: box.y + h });
      extent.left = Math.min(extent.left, box.left);
      extent.right = Math.max(extent.right, box.right);
      extent.bottom = Math.max(extent.bottom, box.bottom);
    }
    for (const edge of edges) {
      [edge.left, edge.right] = d3.extent(edge.points, ([x]) => x);
      [edge.top, edge.bottom] = d3.extent(edge.points, ([, y]) => y);
    }
    placedBoxes.push(...more);
    placedEdges.push(...edges);
    far.append(...look.far(more, edges).flat());
    if (entry === null) setEntry(more[0]);
  };

  const button = (text, title, onclick) => element("button", { type: "button", title, onclick }, text);
  const buttons = element(
    "div",
    { class: "buttons" },
    button("+", "larger (+)", () => larger(1.4)),
    button("−", "smaller (-)", () => larger(1 / 1.4)),
    button("All", "all of the graph", () => fit(placedBoxes)),
    button("Top", "where the graph begins", begin),
  );

  return {
    place: element("div", { class: "canvas" }, canvas),
    overview: overview.place,
    buttons, add, begin, choose, update,
    isMoved: () => moved,
    heightOf: look.heightOf,
    fit: (some) => fit(some.filter((box) => box.x !== undefined)),
  };
};
