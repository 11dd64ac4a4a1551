"""The page in a real browser: it opens from a file, sorts, folds, and names pairs of sentences."""

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from ntk_propulsion.figures import style
from ntk_propulsion.figures.pairs import per_pair
from ntk_propulsion.report.drawing import draw_experiment, labels_of
from ntk_propulsion.report.page import page
from ntk_propulsion.report.pictures import picture

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--v=0"),
]
pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"none of {', '.join(BROWSERS)} is here")
NASTY = (
    "</script><script>document.title = 'run'</script><img src=x onerror=\"document.title='run'\">"
)


@pytest.fixture(scope="module")
def shown(classification):
    """An experiment with texts that mean harm, and names of modules that are long."""
    results = classification.results
    first, second, *others = results.per_module
    return classification.changed(
        examples=(replace(results.examples[0], text=NASTY), *results.examples[1:]),
        notes=(*results.notes, NASTY),
        per_module=(
            replace(first, module="x" * 300),
            replace(second, module="encoder.layer.10.query"),
            *others,
        ),
    )


@pytest.fixture(scope="module")
def made(shown):
    """The page of a report, with a heat map and another figure."""
    drawn = draw_experiment(shown.experiment, shown.arrays)
    kept = {name: drawn[name] for name in ("kernels_theta0_all", "modules_theta0")}
    pictures = {name: picture(name, each, style.render(each)) for name, each in kept.items()}
    return page(shown.report, pictures)


def dump(tmp_path, text):
    """Open a page from a file; return the document as its scripts left it, and the console."""
    path = tmp_path / "page.html"
    path.write_text(text)
    line = [BROWSER, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,900"]
    done = subprocess.run(
        [*line, "--dump-dom", path.as_uri()], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def told(tmp_path, text, script):
    """Let a script look at a page, which the page's policy would forbid; return what it tells."""
    text = re.sub(r"script-src '[^']*'", "script-src 'unsafe-inline'", text)
    tell = f"const tell = {{}}; {script}; document.title = JSON.stringify(tell);"
    document, console = dump(tmp_path, text.replace("</body>", f"<script>{tell}</script></body>"))
    assert console == []
    return json.loads(html.unescape(re.search("<title>(.*?)</title>", document, re.DOTALL)[1]))


def test_it_opens_from_a_file_without_a_word_on_the_console(made, tmp_path):
    document, console = dump(tmp_path, made)
    assert console == []
    assert document.count("<canvas") == 2 * 3  # the template's, and those that it made
    assert "<title>How close is" in document


def test_a_script_that_data_brought_along_would_not_run(made, tmp_path):
    text = made.replace("</main>", "</main><script>document.title = 'run'</script>")
    document, console = dump(tmp_path, text)
    assert "<title>How close is" in document
    assert len(console) == 1
    assert "Content Security Policy" in console[0]


def test_heads_sort_and_sections_fold(made, shown, tmp_path):
    found = told(
        tmp_path,
        made,
        """
        const table = document.querySelector("#modules table");
        const column = at => [...table.tBodies[0].rows].map(row => row.children[at].dataset.v);
        const press = at => table.querySelectorAll("th button")[at].click();
        const state = () => [...table.querySelectorAll("th")].map(th => th.ariaSort);
        press(3); tell.up = column(3); tell.state = state();
        press(3); tell.down = column(3); tell.other = state();
        press(0); tell.names = column(0);
        const section = document.getElementById("modules");
        tell.before = [section.open, section.querySelector("table").checkVisibility()];
        section.querySelector("summary").click();
        tell.after = [section.open, section.querySelector("table").checkVisibility()];
        """,
    )
    values = [module.alignment for module in shown.results.per_module]
    numbers = sorted(v for v in values if v is not None)
    missing = [""] * (len(values) - len(numbers))
    assert found["up"] == [*map(str, numbers), *missing]
    assert found["down"] == [*map(str, reversed(numbers)), *missing]
    assert found["state"] == [None] * 3 + ["ascending"] + [None] * 4
    assert found["other"] == [None] * 3 + ["descending"] + [None] * 4
    layers = [name.split(".")[2] for name in found["names"] if name.startswith("encoder")]
    assert layers == sorted(layers, key=int)
    assert "10" in layers
    assert found["before"] == [False, False]
    assert found["after"] == [True, True]


def test_pointing_at_a_pixel_or_pressing_arrows_names_the_pair(made, shown, tmp_path):
    i, j = 0, 20
    found = told(
        tmp_path,
        made,
        """
        const figure = document.querySelector("figure[data-limit]");
        const words = [...figure.querySelectorAll("[data-say]")];
        const said = () => Object.fromEntries(words.map(one => [one.dataset.say, one.textContent]));
        const canvas = figure.querySelectorAll("canvas")[2];
        const box = canvas.getBoundingClientRect();
        const at = k => (k + 0.5) * box.width / 24;
        const there = { clientX: box.left + at(20), clientY: box.top + at(0), bubbles: true };
        tell.hidden = figure.querySelector("img").checkVisibility();
        canvas.dispatchEvent(new PointerEvent("pointermove", there));
        tell.hover = said();
        canvas.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowDown" }));
        tell.keys = said();
        const pixel = (x, y) =>
          [...canvas.getContext("2d").getImageData(x, y, 1, 1).data].slice(0, 3);
        const cell = canvas.width / 24;
        tell.colour = pixel((5 + 0.5) * cell, (2 + 0.5) * cell);
        """,
    )
    order = labels_of(shown.results).order
    pairs = np.ix_(order, order)
    kernels = [
        per_pair(shown.arrays.kernels["theta0"][t].matrix.numpy(), 24)[pairs]
        for t in ("full", "propulsion")
    ]
    scale = shown.results.distances[0].metrics["best_scale"].value
    full, other = (kernel[i, j] for kernel in kernels)
    hover, keys = found["hover"], found["keys"]
    assert not found["hidden"]
    assert [hover["label0"], hover["label1"]] == [
        f"Example {order[i]}, negative:",
        f"Example {order[j]}, positive:",
    ]
    assert hover["text0"] == NASTY
    assert hover["text1"] == shown.results.examples[order[j]].text
    for name, value in {"K_F": full, "K_P": other, "difference": full - scale * other}.items():
        assert float(hover[name]) == pytest.approx(value, rel=1e-3, abs=1e-3)
    assert keys["label0"] == f"Example {order[i + 1]}, negative:"
    assert keys["label1"] == hover["label1"]
    limit = np.percentile(np.abs(kernels[0]), 99)
    part = np.clip((kernels[0] - scale * kernels[1])[2, 5] / limit, -1, 1)
    expected = [255 * c for c in style.matplotlib.colormaps[style.DIVERGING]((part + 1) / 2)[:3]]
    assert found["colour"] == pytest.approx(expected, abs=6)


def test_a_phone_scrolls_the_page_in_one_direction_only(made, tmp_path):
    text = made.replace("<details ", "<details open ")
    frame = f'<iframe style="width:390px;height:844px" srcdoc="{html.escape(text)}"></iframe>'
    look = """
        onload = () => {
          const page = document.querySelector("iframe").contentDocument.documentElement;
          document.title = JSON.stringify([page.clientWidth, page.scrollWidth]);
        };
    """
    document, console = dump(tmp_path, f"<!doctype html>{frame}<script>{look}</script>")
    assert console == []
    width, needed = json.loads(re.search("<title>(.*?)</title>", document)[1])
    assert 300 < width <= 390
    assert needed == width
