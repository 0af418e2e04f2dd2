"""The page in a real browser, from a file, offline: it works, and nothing of what it holds runs or leaves."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nsd.reports.page.data import collect_comparison, collect_experiment
from nsd.reports.page.page import render_page
from nsd.runner.store.index import Store
from report_workspace import HOSTILE, Written, better_and_worse
from support import PATIENCE

pytestmark = pytest.mark.browser
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield running
        running.close()


class Opened:
    """A page in the browser with what it said and asked for."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(PATIENCE * 1000)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.said.append(f"dialog {dialog.message}"), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def choose(self, **filters: str) -> str:
        """Set filters by their ids and return what the status line says then."""
        for name, value in filters.items():
            if name == "search":
                self.page.fill("#search", value)
                self.settle(200)
            else:
                self.page.select_option(f"#{name}", value)
        return str(self.page.inner_text("#count"))

    def settle(self, milliseconds: int) -> None:
        """Let the page's own timers of less than this run out: they come before one of the same page set later."""
        self.page.evaluate(f"() => new Promise(done => setTimeout(done, {milliseconds}))")

    def count(self) -> tuple[int, int]:
        """Questions and completions that the status line names."""
        found = re.match(r"([\d,]+) questions, ([\d,]+) completions", self.page.inner_text("#count"))
        return (0, 0) if found is None else (int(found[1].replace(",", "")), int(found[2].replace(",", "")))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    claims = [("better", "base"), ("same", "base")]
    folder = tmp_path_factory.mktemp("browser")
    return Written(folder, better_and_worse(), claims=claims, trained=["better", "worse"])


@pytest.fixture(scope="module")
def path(written: Written) -> Path:
    target = written.workspace.root / "page.html"
    with Store(written.workspace).read() as connection:
        target.write_text(render_page(collect_experiment(connection, written.workspace, "toy")), encoding="utf-8")
    return target


@pytest.fixture
def opened(browser: Any, path: Path) -> Iterator[Opened]:
    made = Opened(browser, path)
    yield made
    assert made.said == [] and made.requests == [path.as_uri()]
    made.context.close()


def database(written: Written, sql: str) -> int:
    with Store(written.workspace).read() as connection:
        row = connection.execute(sql).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("width", [380, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_plot_is_drawn_and_nothing_sticks_out(browser: Any, path: Path, width: int, scheme: str) -> None:
    opened = Opened(browser, path, viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = opened.page
    boxes = page.eval_on_selector_all(
        "svg.plot",
        "all => all.filter(one => one.checkVisibility()).map(one => {"
        " const box = one.getBoundingClientRect(); return [box.width, box.height, box.right] })",
    )
    assert len(boxes) >= 7 and all(wide > 100 and high > 50 for wide, high, _ in boxes)
    assert max(right for _, _, right in boxes) <= width
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    fills = page.eval_on_selector_all(
        "svg.plot path", "all => [...new Set(all.map(one => getComputedStyle(one).stroke))]"
    )
    assert len(fills) >= 5  # variables resolve to the theme's colours, not to black alone
    assert opened.said == [] and opened.requests == [path.as_uri()]
    opened.context.close()


def test_the_theme_button_switches_colours(opened: Opened) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    light = opened.page.evaluate(colour)
    opened.page.click("#theme")
    dark = opened.page.evaluate(colour)
    assert light != dark and opened.page.inner_text("#theme") == "Light"
    opened.page.click("#theme")
    assert opened.page.evaluate(colour) == light


def test_counts_of_the_filters_are_those_of_the_database(opened: Opened, written: Written) -> None:
    samples = "SELECT count(*) FROM eval_samples JOIN runs USING (eval_digest) WHERE true"
    assert opened.count() == (120, database(written, samples))
    opened.choose(arm="1")
    assert opened.count() == (120, database(written, f"{samples} AND condition = 'better'"))
    opened.choose(result="wrong")
    wrong = database(written, f"{samples} AND condition = 'better' AND NOT correct")
    assert opened.count() == (wrong, wrong)
    opened.choose(arm="", result="unfinished")
    assert opened.count()[1] == database(written, f"{samples} AND stop_reason = 'length'")


def test_disagreement_is_that_of_the_database(opened: Opened, written: Written) -> None:
    pairs = (
        "SELECT count(*) FROM eval_values a JOIN eval_values b USING (question_id) "
        "JOIN runs x ON x.eval_digest = a.eval_digest JOIN runs y ON y.eval_digest = b.eval_digest "
        "WHERE x.condition = 'better' AND y.condition = 'worse' AND "
    )
    opened.choose(arm="1", other="3")
    assert opened.count()[0] == database(written, f"{pairs} a.value <> b.value")
    opened.choose(result="right")
    assert opened.count()[0] == database(written, f"{pairs} a.value > b.value")
    first = opened.page.locator("#list > li").first
    assert first.locator(".answer").count() == 2
    assert first.locator(".answer.right").count() == first.locator(".answer.wrong").count() == 1
    opened.page.click("#clear")
    opened.settle(50)
    assert opened.count()[0] == 120


def test_search_looks_into_questions_answers_and_completions(opened: Opened) -> None:
    assert opened.choose(search="what is 117?").startswith("1 questions, 4 completions")
    assert opened.choose(search="SAME THINKS ABOUT 5.").startswith("1 questions")
    assert opened.choose(search="no such text") == "nothing fits these filters"
    assert opened.page.locator("#list > li").count() == 0


def test_pages_turn_by_button_and_by_key(opened: Opened) -> None:
    page = opened.page
    ids = lambda: page.locator("#list .id").all_inner_texts()  # noqa: E731
    first = ids()
    assert len(first) == 10 and page.is_disabled("#previous")
    page.click("#next")
    second = ids()
    assert not set(first) & set(second) and "page 2 of 12" in page.inner_text("#count")
    page.focus("#list")
    page.keyboard.press("ArrowLeft")
    assert ids() == first
    page.keyboard.press("End")
    assert "page 12 of 12" in page.inner_text("#count") and page.is_disabled("#next")
    page.keyboard.press("Home")
    assert ids() == first


def test_the_keyboard_alone_reaches_every_control(opened: Opened) -> None:
    page = opened.page
    wanted = page.evaluate(
        "[...document.querySelectorAll('a[href],button,select,input,summary,[tabindex=\"0\"]')]"
        ".filter(one => one.checkVisibility() && !one.disabled).map((one, i) => (one.dataset.place = i)).length"
    )
    reached = set()
    for _ in range(wanted + 5):
        page.keyboard.press("Tab")
        place = page.evaluate("document.activeElement.dataset.place ?? null")
        if place is not None:
            reached.add(place)
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none", page.evaluate("document.activeElement.outerHTML.slice(0, 80)")
    assert len(reached) == wanted > 20


def test_details_open_by_keyboard_and_the_skip_link_leads_to_the_answer(opened: Opened) -> None:
    page = opened.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.focus("#spec summary")
    page.keyboard.press("Enter")
    assert page.is_visible("#spec pre")


@pytest.mark.parametrize("dark", [False, True])
def test_print_shows_every_table_on_light_paper(browser: Any, path: Path, dark: bool) -> None:
    opened = Opened(browser, path, color_scheme="dark" if dark else "light")
    page = opened.page
    if dark:
        page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.emulate_media(media="print")
    page.wait_for_selector("#spec pre", state="visible")
    tables = page.eval_on_selector_all("table", "all => all.map(one => one.checkVisibility() && one.offsetHeight > 0)")
    assert len(tables) >= 12 and all(tables)
    assert not page.is_visible("#browser") and not page.is_visible("#theme") and page.is_visible("#spec pre")
    red = page.evaluate("Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])")
    assert red > 240
    page.emulate_media(media="screen")
    page.wait_for_selector("#spec pre", state="hidden")
    opened.context.close()


def test_without_script_everything_but_the_browser_is_there(browser: Any, path: Path) -> None:
    opened = Opened(browser, path, java_script_enabled=False)
    assert opened.page.is_visible("text=The browser of samples needs JavaScript")
    assert not opened.page.is_visible("#browser") and opened.page.is_visible("svg.plot >> nth=0")
    opened.context.close()


@pytest.mark.parametrize("what", ["completion", "name"])
def test_the_injection_corpus_executes_nothing(browser: Any, tmp_path: Path, what: str) -> None:
    arms = better_and_worse(len(HOSTILE))
    if what == "name":
        names = [text.replace("/", "|") for text in HOSTILE if not re.search("[\ud800-\udfff]", text)]
        arms = dict.fromkeys(names, arms["base"])
    trained = [list(arms)[1]]
    written = Written(
        *(tmp_path, arms),
        trained=trained,
        say=lambda arm, i, right: HOSTILE[i],
        question=lambda i: HOSTILE[-1 - i],
        warning=HOSTILE[0],
        label=HOSTILE[1],
        asks=HOSTILE[4],
        spec="\n".join(HOSTILE[:15]),
    )
    for number, collect in enumerate((collect_experiment, collect_comparison)):
        target = tmp_path / f"{number}.html"
        with Store(written.workspace).read() as connection:
            data = collect(connection, written.workspace, "toy" if number == 0 else ["toy/*"])  # type: ignore[operator]
        target.write_text(render_page(data), encoding="utf-8")
        opened = Opened(browser, target)
        shown = ""
        while True:
            shown += opened.page.inner_text("#list")
            if opened.page.is_disabled("#next"):
                break
            opened.page.click("#next")
        if what == "completion":
            assert "<script>window.hacked=1</script>" in shown and "\\u202egnp.exe" in shown
            assert "\\x1b[31mred" in shown and "{{ 7 * 7 }}" in shown and "&lt;b&gt;" in shown
        assert opened.page.evaluate("window.hacked") is None
        assert opened.page.locator("#list script, #list img, #list svg, #list iframe, #list a").count() == 0
        assert opened.said == [] and opened.requests == [target.as_uri()]
        opened.context.close()


def test_the_pairs_of_many_runs_are_filtered(browser: Any, written: Written, tmp_path: Path) -> None:
    target = tmp_path / "runs.html"
    with Store(written.workspace).read() as connection:
        data = collect_comparison(connection, written.workspace, ["toy/*"])
    target.write_text(render_page(data), encoding="utf-8")
    opened = Opened(browser, target)
    page = opened.page
    page.click("#pairs > summary")
    assert page.inner_text("#pair-count") == "6 of 6 pairs"
    page.fill("#pair-search", "worse")
    assert page.inner_text("#pair-count") == "3 of 6 pairs"
    page.select_option("#pair-verdict", "UNRESOLVED")
    expected = sum(one.verdict == "UNRESOLVED" and "worse" in one.a + one.b for one in data.pairs)
    assert page.inner_text("#pair-count") == f"{expected} of 6 pairs"
    assert page.locator("#pair-table tbody tr:visible").count() == expected
    assert opened.said == [] and opened.requests == [target.as_uri()]
    opened.context.close()
