"""The page as a file: structure, size, no address of anything else, and nothing of a hostile text left alive."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from nsd.plugins.untrusted import script_json, visible
from nsd.reports.page.data import PageData, collect_comparison, collect_experiment
from nsd.reports.page.format import needed
from nsd.reports.page.page import render_page
from nsd.reports.page.text import as_csv, as_json, as_markdown
from nsd.runner.store.index import Store
from report_workspace import HOSTILE, Written, better_and_worse

VOID = {"meta", "link", "br", "img", "input", "hr", "base"}


class Page(HTMLParser):
    """Tags with attributes in order, texts, headings, and whether every element was closed in turn."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.text = ""
        self.unbalanced: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif self.open and self.open[-1] == "style":
            self.styles.append(data)
        else:
            self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def experiment(written: Written) -> PageData:
    with Store(written.workspace).read() as connection:
        return collect_experiment(connection, written.workspace, written.name)


def comparison(written: Written) -> PageData:
    with Store(written.workspace).read() as connection:
        return collect_comparison(connection, written.workspace, [f"{written.name}/*"])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PageData:
    claims = [("better", "base"), ("same", "base"), ("worse", "base"), ("absent", "base")]
    written = Written(tmp_path_factory.mktemp("page"), better_and_worse(), claims=claims, trained=["better", "worse"])
    return experiment(written)


@pytest.fixture(scope="module")
def html(data: PageData) -> str:
    return render_page(data)


def test_the_page_is_balanced_and_names_nothing_outside_itself(html: str) -> None:
    page = Page(html)
    assert page.unbalanced == [] and page.open == []
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "srcset", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith("#"), (tag, name, value)
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
    assert "@import" not in page.styles[0] and "url(" not in page.styles[0]


def test_the_policy_allows_exactly_the_style_and_script_that_are_there(html: str) -> None:
    page = Page(html)
    (policy,) = [meta["content"] for meta in page.named("meta") if meta.get("http-equiv")]
    assert policy is not None and policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    for text in (page.styles[0], page.scripts[-1]):
        assert f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" in policy


def test_ids_are_unique_and_headings_go_down_in_steps(html: str) -> None:
    page = Page(html)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert {"header", "nav", "main", "footer"} <= {tag for tag, _ in page.tags}
    targets = {str(attributes["href"])[1:] for attributes in page.named("a")}
    assert targets <= set(ids)


def test_the_answer_comes_first_and_every_claim_is_there(html: str, data: PageData) -> None:
    page = Page(html)
    order = [attributes["id"] for attributes in page.named("section")]
    wanted = ["answer", "differences", "arms", "training", "labels", "noise", "cost", "samples", "method", "spec"]
    assert order == wanted
    assert data.headline in page.text
    for verdict in data.verdicts:
        assert verdict.claim in page.text and verdict.verdict in page.text
    unresolved = [one for one in data.verdicts if one.verdict == "UNRESOLVED" and one.comparison]
    assert unresolved
    for one in unresolved:
        assert one.comparison is not None and one.comparison.needed_n is None
        assert needed(one.comparison) in page.text


@pytest.mark.slow
def test_a_claim_recorded_after_its_result_is_marked_and_kept_apart(tmp_path: Path) -> None:
    claims = [("better", "base")]
    late = Written(tmp_path, better_and_worse(), claims=claims, recorded_at="2026-02-01T00:00:00+00:00")
    found = experiment(late)
    assert found.verdicts == [] and [one.claim for one in found.late] == ["better > base"]
    text = Page(render_page(found)).text
    assert "Claims written after their results" in text and "EXPLORATORY: recorded 2026-02-01" in text
    assert "better > base (late claim)" in text and "declares no claim that was on record before" in text


def test_what_is_absent_is_said(tmp_path: Path) -> None:
    text = Page(render_page(experiment(Written(tmp_path, {"base": [True, False, True]})))).text
    assert "declares no claim" in text and "nothing was trained" in text
    assert "learned from pseudo-labels" in text and "--repeat-eval" in text and "Nothing could be compared" in text


def test_every_plot_has_its_numbers_in_a_table(html: str) -> None:
    page = Page(html)
    assert len([1 for svg in page.named("svg") if svg.get("role") == "img"]) >= 10
    for caption in ("Claims declared before", "Exploratory comparisons", "Arms", "Training loss", "By confidence"):
        assert caption.lower() in html.lower()


@pytest.mark.slow
def test_the_same_data_give_the_same_bytes(html: str, data: PageData) -> None:
    assert render_page(data) == html


@pytest.mark.slow
def test_a_page_of_runs_has_a_matrix_and_all_pairs(tmp_path: Path) -> None:
    found = comparison(Written(tmp_path, better_and_worse()))
    page = Page(render_page(found))
    assert page.unbalanced == [] and "4 runs were compared, 6 pairs" in page.text
    assert "matrix" in [attributes["id"] for attributes in page.named("section")]
    assert "All 6 pairs" in page.text and "Nothing was declared before these results" in page.text
    assert "first place" in page.text and "Holm over all 6 pairs" in page.text


@pytest.mark.slow
@pytest.mark.parametrize("place", ["completion", "question", "name", "asks", "spec", "warning", "label"])
def test_nothing_of_the_injection_corpus_becomes_markup(tmp_path: Path, place: str, html: str) -> None:
    arms = better_and_worse(len(HOSTILE))
    # The index holds no lone surrogates: only Parquet files could, and they keep a replacement character.
    storable = [text for text in HOSTILE if not re.search("[\ud800-\udfff]", text)]
    everything = " ".join(storable)
    options: dict[str, object] = {
        "completion": {"say": lambda arm, i, right: HOSTILE[i]},
        "question": {"question": lambda i: HOSTILE[i]},
        "name": {"name": HOSTILE[1].replace("/", "\\")},
        "asks": {"asks": everything},
        "spec": {"spec": everything},
        "warning": {"warning": everything},
        "label": {"label": everything},
    }[place]
    if place == "name":
        arms = {text.replace("/", "|"): arms["base"] for text in storable}
    trained = [list(arms)[1]]
    claims = [(list(arms)[1], next(iter(arms)))]
    written = Written(tmp_path, arms, trained=trained, claims=claims, **options)  # type: ignore[arg-type]
    for found in (experiment(written), comparison(written)):
        text = render_page(found)
        assert text.encode("utf-8").decode("utf-8") == text
        page = Page(text)
        allowed = {tag for tag, _ in Page(html).tags} | {"caption", "dl", "time"}
        assert {tag for tag, _ in page.tags} <= allowed and page.unbalanced == []
        assert not [1 for _, attributes in page.tags for name in attributes if name.startswith("on")]
        assert len(page.named("script")) == 2 and len(page.styles) == 1
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]", text)
        assert "49 xxx" not in page.text
        json.loads(page.scripts[0])
        for render in (as_markdown, as_csv, as_json):
            assert render(found)
        assert "<script" not in re.sub(r"\\<", "", as_markdown(found))


def test_a_megabyte_of_completion_is_cut(tmp_path: Path) -> None:
    written = Written(tmp_path, {"a": [True, False]}, say=lambda arm, i, right: "<b>" * 350_000)
    text = render_page(experiment(written))
    assert len(text) < 500_000 and "2 long texts are cut" in Page(text).text


@pytest.mark.slow
def test_of_very_many_pairs_the_plot_shows_some_and_the_table_all(tmp_path: Path) -> None:
    arms = {f"arm{number}": [(i * number) % 13 < 6 for i in range(40)] for number in range(1, 14)}
    page = Page(render_page(experiment(Written(tmp_path, arms))))
    assert "the 60 largest of 78" in page.text and "(78 comparisons)" in page.text


@pytest.mark.slow
def test_eight_arms_of_a_thousand_questions_stay_below_five_megabytes(tmp_path: Path) -> None:
    arms = {f"arm{number}": [(i * number) % 7 < 4 for i in range(1000)] for number in range(1, 9)}
    text = "Total: 9 * 3 = 27\nAdded: 5 * 4 = 20\nTotal: 27 + 20 = 47\n#### 47\n" * 2
    found = experiment(Written(tmp_path, arms, say=lambda arm, i, right: text, question=lambda i: f"{i} " * 60))
    assert found.samples.shown_completions == 8000
    assert len(render_page(found).encode()) < 5_000_000


def test_markdown_tables_are_whole(tmp_path: Path, data: PageData) -> None:
    many = {f"arm|{number}": [(i * number) % 7 < 4 for i in range(60)] for number in range(1, 10)}
    for found in (data, comparison(Written(tmp_path, many))):
        blocks = [block for block in as_markdown(found).split("\n\n") if block.startswith("|")]
        assert len(blocks) >= 2
        for block in blocks:
            cells = [re.sub(r"\\.", "", line).count("|") for line in block.splitlines()]
            assert len(set(cells)) == 1, block


def test_hidden_characters_are_written_out() -> None:
    assert visible("a\u202eb\x00c\ud800\r\nd\te\n") == "a\\u202eb\\x00c\\ud800\nd\te\n"
    assert visible("naïve 漢字 😀 – −") == "naïve 漢字 😀 – −"


def test_json_for_a_script_element_holds_no_markup_and_reads_back() -> None:
    value = {"x": "</script><!--&\u2028\ud800"}
    text = script_json(value)
    assert not re.search("[<>&\u2028\ud800]", text) and json.loads(text) == value


def test_text_forms_agree_with_the_data(data: PageData) -> None:
    markdown, table = as_markdown(data), as_csv(data).splitlines()
    assert "| better > base | BETTER | +25.0 |" in markdown and "| absent > base | UNRESOLVED |" in markdown
    assert "How computed: tests: McNemar mid-p" in markdown
    roles = [line.partition(",")[0] for line in table[1:]]
    assert roles == ["declared"] * 4 + ["exploratory"] * len(data.answer.exploratory)  # type: ignore[union-attr]
    loaded = json.loads(as_json(data))
    assert next(one["claim"] for one in loaded["answer"]["verdicts"]) == "better > base"
    assert loaded["labels"][0]["questions"] == 40 and loaded["cost"]["stages"] == 7
