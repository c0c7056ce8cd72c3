"use strict";

/**
 * Places for boxes and edges, in layers from top to bottom.
 *
 * dagre places a graph well, but takes more than proportional time, and recurses as deep as the graph
 * is. So the graph is cut into pieces, in the order of the boxes: where all edges that cross a line
 * between two boxes come from one box, that box ends one piece and begins the next, and the drawing
 * goes through it as if it had been made in one. Where no such line comes for long, a cut is made
 * through several edges.
 */
const layout = (() => {
  const WIDTH = 190;
  const GAP = 34;
  const LEAST = 30; // boxes of a piece: fewer would take a call of dagre each
  const MOST = 160; // boxes after which a piece is cut through edges

  /** Pieces of the order, each with the box that it has in common with the one before, or null. */
  const cut = (order) => {
    const place = new Map(order.map((box, i) => [box, i]));
    const last = order.map((box, i) => Math.max(i, ...box.to.map((next) => place.get(next))));
    const pieces = [];
    let begin = 0;
    let joint = null;
    let open = []; // places of boxes before the line that feed some behind it
    for (let i = 0; i < order.length; i++) {
      open = open.filter((j) => last[j] > i);
      if (last[i] > i) open.push(i);
      const long = i + 1 - begin;
      if (i + 1 < order.length && ((open.length === 1 && long >= LEAST) || long >= MOST)) {
        pieces.push({ boxes: order.slice(begin, i + 1), joint });
        joint = open.length === 1 ? order[open[0]] : null;
        begin = i + 1;
      }
    }
    if (begin < order.length) pieces.push({ boxes: order.slice(begin), joint });
    return pieces;
  };

  const placed = new Map();

  /**
   * Where dagre places boxes of such heights, joined by such edges. Networks repeat their blocks, so
   * that most pieces look like one before.
   * @param {number[]} heights of the boxes.
   * @param {number[][]} edges pairs of numbers of boxes.
   * @returns {{boxes: Object[], edges: Object[][]}} the centres of boxes, and the points of edges.
   */
  const places = (heights, edges) => {
    const key = JSON.stringify([heights, edges]);
    if (!placed.has(key)) {
      const graph = new dagre.graphlib.Graph();
      graph.setGraph({ rankdir: "TB", nodesep: 22, ranksep: GAP, ranker: "tight-tree" });
      graph.setDefaultEdgeLabel(() => ({}));
      heights.forEach((height, i) => graph.setNode(i, { width: WIDTH, height }));
      for (const [from, to] of edges) graph.setEdge(from, to);
      dagre.layout(graph);
      placed.set(key, {
        boxes: heights.map((_, i) => graph.node(i)),
        edges: edges.map(([from, to]) => graph.edge(from, to).points),
      });
    }
    return placed.get(key);
  };

  /** Places one piece; its joint stays where it is. */
  const placePiece = ({ boxes, joint }, edges, top, heightOf) => {
    const all = joint ? [joint, ...boxes] : boxes;
    const numbers = new Map(all.map((box, i) => [box, i]));
    const own = edges.filter(({ from }) => numbers.has(from));
    const heights = all.map(heightOf);
    const at = places(
      heights,
      own.map(({ from, to }) => [numbers.get(from), numbers.get(to)]),
    );
    const [dx, dy] = joint
      ? [joint.x - at.boxes[0].x, joint.y - at.boxes[0].y]
      : [-d3.mean(d3.extent(at.boxes, (box) => box.x)), top + GAP];
    all.forEach((box, i) => {
      if (box === joint) return;
      const { x, y } = at.boxes[i];
      Object.assign(box, { x: x + dx, y: y + dy, width: WIDTH, height: heights[i] });
    });
    own.forEach((edge, i) => {
      edge.points = at.edges[i].map(({ x, y }) => [x + dx, y + dy]);
    });
    return d3.max(boxes, (box) => box.y + box.height / 2);
  };

  /** An edge from one piece to another: straight out of one box and into the other. */
  const joinPieces = (edge) => {
    const { from, to } = edge;
    const [begin, end] = [from.y + from.height / 2, to.y - to.height / 2];
    edge.points = [[from.x, begin], [from.x, begin + GAP / 2], [to.x, end - GAP / 2], [to.x, end]];
  };

  /**
   * Places all boxes (`x`, `y` of the centre, `width`, `height`) and edges (`points`), piece after
   * piece.
   * @param {Object} graph as `makeGraph` gives it.
   * @param {function(Object): number} heightOf a box.
   * @yields {{boxes: Object[], edges: Object[]}} what was placed.
   */
  function* place({ order, edges }, heightOf) {
    const pieceOf = new Map();
    const pieces = cut(order);
    pieces.forEach((piece, i) => piece.boxes.forEach((box) => pieceOf.set(box, i)));
    // An edge belongs to the piece that its end is in.
    const own = d3.group(edges, (edge) => pieceOf.get(edge.to));
    let top = 0;
    for (let i = 0; i < pieces.length; i++) {
      const ending = own.get(i) ?? [];
      top = placePiece(pieces[i], ending, top, heightOf);
      for (const edge of ending) if (!edge.points) joinPieces(edge);
      yield { boxes: pieces[i].boxes, edges: ending };
    }
  }

  return { place, cut };
})();
