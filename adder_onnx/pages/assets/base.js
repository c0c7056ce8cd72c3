"use strict";

/**
 * What all pages share. Text that is not ours gets into a page as text only: nothing here or in the
 * pages' own scripts sets HTML.
 */
const adder = (() => {
  const SVG = "http://www.w3.org/2000/svg";

  /** What the page is drawn from. */
  const data = JSON.parse(document.getElementById("data").textContent);

  const fill = (made, attributes, children) => {
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else if (value !== null && value !== undefined && value !== false) {
        made.setAttribute(name, value === true ? "" : value);
      }
    }
    made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
    return made;
  };

  /**
   * An HTML element.
   * @param {string} tag
   * @param {Object} attributes `onclick` and the like are listeners; null, undefined and false are
   *   left out.
   * @param {...(Node|string)} children text stays text.
   */
  const element = (tag, attributes = {}, ...children) =>
    fill(document.createElement(tag), attributes, children);

  /** The same for SVG. */
  const svg = (tag, attributes = {}, ...children) =>
    fill(document.createElementNS(SVG, tag), attributes, children);

  /** A number with three digits and a metric prefix: 40.4 M. */
  const si = (value, unit = "") => {
    if (value === null || value === undefined) return "–";
    const sizes = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
    const [size, prefix] = sizes.find(([size]) => Math.abs(value) >= size) ?? [1, ""];
    return `${Number((value / size).toPrecision(3))} ${prefix}${unit}`.trim();
  };

  /** Seconds, in the unit that suits them. */
  const seconds = (value) => {
    if (value === null || value === undefined) return "–";
    const [size, unit] = value >= 1 ? [1, "s"] : value >= 1e-3 ? [1e-3, "ms"] : [1e-6, "µs"];
    return `${Number((value / size).toPrecision(3))} ${unit}`;
  };

  /** A share as a percentage. */
  const percent = (value) =>
    value === null || value === undefined ? "–" : `${(100 * value).toFixed(1)} %`;

  const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

  /** Text of others on one line: what cannot be seen, or turns the direction, becomes a mark. */
  const visible = (text) => String(text).replace(UNSEEN, "·");

  /** The same, its middle left out where it is longer than so many characters. */
  const shorten = (text, most = 40) => {
    const characters = Array.from(visible(text));
    if (characters.length <= most) return characters.join("");
    const tail = Math.floor(most / 2);
    return `${characters.slice(0, most - tail - 1).join("")}…${characters.slice(-tail).join("")}`;
  };

  /** An element that shows a name of others, whole as its title. */
  const name = (text, most = 60) => {
    const short = shorten(text, most);
    const title = short === text ? null : shorten(text, 2000);
    return element("span", { class: "name", dir: "ltr", title }, short);
  };

  /** A heading and what stands under it. */
  const section = (title, ...children) => element("section", {}, element("h2", {}, title), ...children);

  /** A list of terms and values, for figures of a whole. */
  const figures = (pairs) =>
    element(
      "dl",
      { class: "figures" },
      pairs
        .filter(([, value]) => value !== null && value !== undefined)
        .map(([term, value]) => element("div", {}, element("dt", {}, term), element("dd", {}, value))),
    );

  /**
   * A table whose headings sort it.
   * @param {Object[]} columns each a `title`; `value(row)`, by which it sorts; `show(row)`, a text or
   *   an element, by default the value; and `number` for numbers, which are set to the right and sort
   *   downwards first. Rows without a value come last.
   * @param {Object[]} rows
   * @param {Object} options `onchoose(row)` makes rows choosable by click and by key; `most` is how
   *   many rows are shown at first.
   */
  const table = (columns, rows, { onchoose = null, most = 500, label = null } = {}) => {
    let order = [...rows];
    let shown = most;
    const body = element("tbody");
    const heads = columns.map((column, i) =>
      element(
        "th",
        { class: column.number ? "number" : null, scope: "col" },
        element("button", { type: "button", onclick: () => sort(i) }, column.title),
      ),
    );
    const cell = (column, row) => {
      const made = column.show ? column.show(row) : column.value(row);
      const text = made === null || made === undefined ? "–" : made instanceof Node ? made : String(made);
      return element("td", { class: column.number ? "number" : null }, text);
    };
    const line = (row) => {
      const made = element("tr", {}, columns.map((column) => cell(column, row)));
      if (onchoose !== null) {
        made.tabIndex = 0;
        made.addEventListener("click", () => onchoose(row));
        made.addEventListener("keydown", (event) => {
          if (event.key === "Enter" || event.key === " ") {
            event.preventDefault();
            onchoose(row);
          }
        });
      }
      return made;
    };
    const more = element("button", { type: "button", onclick: () => { shown = Infinity; fillBody(); } });
    const fillBody = () => {
      body.replaceChildren(...order.slice(0, shown).map(line));
      more.hidden = order.length <= shown;
      more.textContent = `Show all ${order.length} rows`;
    };
    const sort = (i) => {
      const { value, number } = columns[i];
      const before = heads[i].getAttribute("aria-sort");
      const first = number ? "descending" : "ascending";
      const second = number ? "ascending" : "descending";
      const now = before === first ? second : first;
      heads.forEach((head) => head.removeAttribute("aria-sort"));
      heads[i].setAttribute("aria-sort", now);
      const sign = now === "ascending" ? 1 : -1;
      order = [...rows].sort((a, b) => {
        const [x, y] = [value(a) ?? null, value(b) ?? null];
        if (x === null || y === null) return (x === null) - (y === null);
        return sign * (x < y ? -1 : x > y ? 1 : 0);
      });
      fillBody();
    };
    fillBody();
    return element(
      "div",
      {},
      element(
        "div",
        { class: "scroll", tabindex: 0, role: "region", "aria-label": label },
        element("table", {}, element("thead", {}, element("tr", {}, heads)), body),
      ),
      more,
    );
  };

  /**
   * A plot that is drawn anew when its place becomes wider or narrower.
   * @param {function(number): Node} draw makes it, for a width in pixels.
   * @param {string} label what it shows, for those who do not see it.
   */
  const plot = (draw, label) => {
    const place = element("div", { class: "plot", role: "img", "aria-label": label });
    let width = 0;
    new ResizeObserver(() => {
      const now = Math.floor(place.clientWidth);
      if (now > 0 && now !== width) {
        width = now;
        place.replaceChildren(draw(width));
      }
    }).observe(place);
    return place;
  };

  /** Puts elements into the page. */
  const show = (...children) => document.querySelector("main").append(...children.flat());

  return {
    data, element, svg, si, seconds, percent, visible, shorten, name, section, figures, table, plot,
    show,
  };
})();
