"use strict";

/**
 * All of the graph beside the drawing, small, with what of it is in sight.
 * @param {Object} view `boxes()` that are placed, `extent` of them, `sight()`: the part in sight as
 *   left, top, right and bottom, and `goTo(point)`.
 */
const makeOverview = (colors, view) => {
  const EDGE = 4; // pixels to both sides
  const place = adder.element("canvas", { class: "overview", title: "all of the graph: click to go there" });

  const scale = () => [
    (place.clientWidth - 2 * EDGE) / (view.extent.right - view.extent.left),
    place.clientHeight / view.extent.bottom,
  ];

  const draw = () => {
    const [width, height] = [place.clientWidth, place.clientHeight];
    if (!width || !height || view.extent.bottom <= 0) return;
    const ratio = window.devicePixelRatio || 1;
    place.width = width * ratio;
    place.height = height * ratio;
    const context = place.getContext("2d");
    const [sx, sy] = scale();
    const across = (x) => sx * (x - view.extent.left) + EDGE;
    context.scale(ratio, ratio);
    for (const box of view.boxes()) {
      context.fillStyle = box.step === null ? "#888888" : colors[box.step];
      context.globalAlpha = box.kind === "adder" ? 1 : 0.55;
      context.fillRect(
        across(box.x - box.width / 2),
        sy * (box.y - box.height / 2),
        Math.max(2, sx * box.width),
        Math.max(1, sy * box.height),
      );
    }
    const sight = view.sight();
    const left = Math.max(1, across(sight.left));
    const right = Math.min(width - 1, across(sight.right));
    const top = Math.max(1, sy * sight.top);
    const bottom = Math.min(height - 1, sy * sight.bottom);
    context.globalAlpha = 1;
    context.strokeStyle = getComputedStyle(place).getPropertyValue("--focus");
    context.lineWidth = 1.5;
    context.strokeRect(left, top, right - left, bottom - top);
  };

  const go = (event) => {
    if (!event.buttons) return;
    const [sx, sy] = scale();
    view.goTo({ x: (event.offsetX - EDGE) / sx + view.extent.left, y: event.offsetY / sy });
  };
  place.addEventListener("pointerdown", go);
  place.addEventListener("pointermove", go);
  new ResizeObserver(draw).observe(place);
  return { place, draw };
};
