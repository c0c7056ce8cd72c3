"""What must hold of the page of any network, driven in a browser as a reader would."""

from adder_onnx.pages.network import network_page
from tests.browser import WIDTHS


def check_network_page(browser, report, folder, *, most_nodes=8):
    """Opens the page of a report and checks it, at both widths, by search, by mouse and by keys."""
    path = folder / "network.html"
    path.write_text(network_page(report), encoding="utf-8")
    for width in WIDTHS:
        with browser.opened(path, width=width, dark=width == WIDTHS[0]) as opened:
            opened.check()
            every = max(1, len(report["nodes"]) // most_nodes)
            for node in report["nodes"][::every]:
                search(opened, node["name"])
                assert panel(opened)["title"] == node["name"]
                _check_figures(panel(opened), node)
            opened.check()
    with browser.opened(path) as opened:
        opened.settle()
        _click_chooses(opened)
        _keys_reach_everything(opened)
        assert opened.complaints == []
    return path


def search(opened, text):
    """Chooses the first node whose name has this text."""
    field = opened.page.get_by_role("searchbox")
    field.fill(text)
    field.press("Enter")


def panel(opened):
    """What the panel shows of a node: its title, and all terms with their values."""
    return opened.page.evaluate("""() => {
      const panel = document.querySelector(".panel > div");
      const own = (query) =>
        [...panel.querySelectorAll(query)].filter((e) => !e.closest("details"));
      const named = (e) => e.querySelector("[title]") ?? e.firstElementChild;
      const text = (e) => named(e)?.title || e.textContent;
      const [titles, terms, values] = ["h3", "dt", "dd"].map((query) => own(query).map(text));
      return {title: titles[0], ...Object.fromEntries(terms.map((term, i) => [term, values[i]]))};
    }""")


def _check_figures(shown, node):
    """The panel's figures are the report's."""
    whole = {
        "taps": "taps",
        "MACs": "macs",
        "additions": "adds",
        "multiplications": "multiplications",
        "parameters": "parameters",
        "bytes of weights": "weight_bytes",
        "bytes of activations": "activation_bytes",
    }
    for term, key in whole.items():
        assert shown.get(term) == (None if node[key] is None else f"{node[key]:,}"), term
    assert shown["step"].split()[0] == str(node["step"])
    assert shown.get("fused into") == node["fused_into"]
    if "profile" in node:
        found = node["profile"]
        assert shown["share of the run"] == f"{100 * found['share']:.1f} %"
        _check_number(shown["median of a run"], found["times"]["median"])
        _check_number(shown["taps/s"], found["taps_per_second"])
    if node["integers"] is not None:
        low, high = (float(end) for end in shown["output's range"].split(" … "))
        for end, expected in zip((low, high), node["integers"]["output_range"], strict=True):
            assert abs(end - expected) <= 1e-3 * abs(expected)
        at_ends = node["integers"]["weights_at_ends"]
        assert shown["weights at the range's ends"] == f"{100 * at_ends:.1f} %"
        levels = ", ".join(map(str, node["integers"]["levels"]))
        assert shown.get("output's levels", "") == levels


def _check_number(text, expected):
    number, unit = text.split()
    factor = {"s": 1, "ms": 1e-3, "µs": 1e-6, "T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3}[unit]
    assert abs(float(number) * factor - expected) <= 0.006 * expected


def _click_chooses(opened):
    boxes = opened.page.locator("svg.box:not(.input):not(.conversion)")
    for i in range(min(3, boxes.count())):
        box = boxes.nth(i)
        label = box.get_attribute("aria-label")
        box.click()
        assert panel(opened)["title"].startswith(label.split(",")[0].split("…")[0])


def _keys_reach_everything(opened):
    """Tab goes from the search by the buttons into the graph, and out again; arrows go along it."""
    page = opened.page
    page.get_by_role("button", name="Top", exact=True).click()
    field = page.get_by_role("searchbox")
    field.fill("")
    field.focus()
    for _ in range(5):
        page.keyboard.press("Tab")
    seen = []
    for key in ("Home", "ArrowDown", "ArrowDown", "ArrowDown", "ArrowUp", "End"):
        page.keyboard.press(key)
        assert page.evaluate("() => document.activeElement.classList.contains('box')")
        seen.append(page.evaluate("() => document.activeElement.getAttribute('aria-label')"))
        page.keyboard.press("Enter")
        title = panel(opened)["title"]
        named = seen[-1].split(",")[0].split("…")[0]
        assert title.startswith(named) or " -> " in named, (title, seen)
    assert len({*seen[:4], seen[5]}) == 5
    assert seen[4] != seen[3]
    page.keyboard.press("Tab")
    assert not page.evaluate("() => document.activeElement.classList.contains('box')")
