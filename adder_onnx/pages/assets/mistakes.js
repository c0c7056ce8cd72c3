"use strict";

{
  const { data, element, figures, name, percent, show } = adder;
  const shown = data.mistakes.length;
  const withConfidence = data.mistakes.some((mistake) => mistake.confidence !== null);

  const line = (term, kind, className, confidence) =>
    element(
      "div",
      { class: `line ${kind}` },
      element("dt", {}, term),
      element(
        "dd",
        {},
        name(className, 40),
        confidence === null ? null : element("span", { class: "share" }, percent(confidence)),
        confidence === null ? null : bar(confidence),
      ),
    );

  const bar = (share) => {
    const filled = element("span");
    filled.style.width = `${100 * share}%`;
    return element("span", { class: "bar", "aria-hidden": "true" }, filled);
  };

  const picture = ({ picture, label, answer }) =>
    picture === null
      ? element("span", { class: "faint" }, "no picture")
      : element("img", {
          class: Math.max(picture.width, picture.height) <= 64 ? "small" : null,
          src: picture.uri,
          width: picture.width,
          height: picture.height,
          alt: adder.shorten(`${label}, taken for ${answer}`, 120),
        });

  const card = (mistake) =>
    element(
      "li",
      {},
      element("div", { class: "picture" }, picture(mistake)),
      element(
        "dl",
        {},
        line("answer", "wrong", mistake.answer, mistake.confidence),
        line("true class", "right", mistake.label, mistake.labelConfidence),
      ),
      element("p", { class: "faint" }, name(mistake.name, 60)),
    );

  /** The pairs of classes that are shown, most frequent first. */
  const pairs = () => {
    const found = new Map();
    for (const mistake of data.mistakes) {
      const key = JSON.stringify([mistake.label, mistake.answer]);
      found.set(key, [...(found.get(key) ?? []), mistake]);
    }
    return [...found.values()].sort((a, b) => b.length - a.length);
  };

  const sheet = element("ol", { class: "sheet" }, data.mistakes.map(card));

  const chooser = () => {
    const groups = pairs();
    const option = ([first, ...rest], i) =>
      element(
        "option",
        { value: i },
        `${adder.shorten(first.label, 30)} taken for ${adder.shorten(first.answer, 30)} ` +
          `(${rest.length + 1})`,
      );
    const select = element(
      "select",
      {
        id: "pair",
        onchange: () => {
          const chosen = select.value === "" ? data.mistakes : groups[Number(select.value)];
          sheet.replaceChildren(...chosen.map(card));
        },
      },
      element("option", { value: "" }, `all (${shown})`),
      groups.map(option),
    );
    return element("p", {}, element("label", { for: "pair" }, "Show "), select);
  };

  const order = withConfidence
    ? "The surer the model is of its wrong answer, the earlier an image comes."
    : "The model gives no probabilities: images are in the order of the data.";

  show(
    element("h1", {}, "Mistakes of ", name(data.model, 80)),
    element("p", { class: "faint" }, name(data.data, 120)),
    figures([
      ["right at top-1", percent(1 - data.wrong / data.images)],
      ["images", String(data.images)],
      ["wrong", String(data.wrong)],
      ["shown", String(shown)],
    ]),
    shown === 0
      ? element("p", {}, "The model is right about all images.")
      : [element("p", {}, order), chooser(), sheet],
  );
}
