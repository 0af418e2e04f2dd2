"""Every number in a report's tables stands under the head that names it, on the page, in Markdown and in CSV."""

from __future__ import annotations

import csv
import html as entities
import io
import re
from dataclasses import replace

import pytest

from nsd.reports.judge.comparison import show_p
from nsd.reports.page.data import PageData, collect_experiment
from nsd.reports.page.format import limits, mean, points, share, share_limits
from nsd.reports.page.page import render_page
from nsd.reports.page.text import as_csv, as_markdown
from nsd.runner.store.index import Store
from report_workspace import Written, better_and_worse

Table = list[dict[str, str]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PageData:
    """An experiment whose numbers all differ, so that none can stand in another's place."""
    claims = [("better", "base"), ("same", "base")]
    written = Written(tmp_path_factory.mktemp("tables"), better_and_worse(), claims=claims, trained=["better"])
    with Store(written.workspace).read() as connection:
        found = collect_experiment(connection, written.workspace, written.name)
    arms = [
        replace(arm, truncated=0.01 * i, failed=0.001 * i, seeds=[7 + i], samples=20 + i, n=100 + i)
        for i, arm in enumerate(found.arms, 1)
    ]
    labels = [
        replace(label, coverage=0.11, accuracy_voted=0.22, accuracy_kept=0.33, voted=31) for label in found.labels
    ]
    assert found.answer is not None
    verdicts = [
        replace(one, comparison=replace(one.comparison, p=0.0123, p_adjusted=0.234)) if one.comparison else one
        for one in found.answer.verdicts
    ]
    late = [replace(verdicts[1], claim="late > base", mark="EXPLORATORY: late")]
    return replace(found, arms=arms, labels=labels, answer=replace(found.answer, verdicts=verdicts, late=late))


def plain(markup: str) -> str:
    return " ".join(entities.unescape(re.sub(r"<[^>]+>", " ", markup)).split())


def page_tables(data: PageData) -> dict[str, Table]:
    """Tables of the page by their first head."""
    found = {}
    for table in re.findall(r"<table.*?</table>", render_page(data), re.DOTALL):
        heads = [plain(one) for one in re.findall(r"<th scope=\"col\"[^>]*>(.*?)</th>", table, re.DOTALL)]
        body = table.partition("</thead>")[2]
        rows = [
            re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in re.findall(r"<tr.*?</tr>", body, re.S)
        ]
        whole = [dict(zip(heads, map(plain, row), strict=True)) for row in rows if len(row) == len(heads)]
        found.setdefault(heads[0], whole)
    return found


def markdown_tables(data: PageData) -> dict[str, Table]:
    """The same of the Markdown."""
    found: dict[str, Table] = {}
    for block in re.findall(r"(?:^\|.*\|\n?)+", as_markdown(data), re.MULTILINE):
        heads, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.strip().splitlines()]
        found.setdefault(heads[0], [dict(zip(heads, row, strict=True)) for row in rows])
    return found


def columns(table: Table, *heads: str) -> list[tuple[str, ...]]:
    return [tuple(row[head] for head in heads) for row in table]


def test_arms_have_their_numbers_under_their_heads(data: PageData) -> None:
    on_page, in_text = page_tables(data)["arm"], markdown_tables(data)["arm"]
    heads = ("mean", "95 % interval", "n", "truncated", "failed")
    expected = [
        (mean(arm.mean), share_limits(arm.ci), str(arm.n), share(arm.truncated), share(arm.failed)) for arm in data.arms
    ]
    assert columns(on_page, *heads) == columns(in_text, *heads) == expected
    assert [row["arm"] for row in on_page] == [row["arm"] for row in in_text] == [arm.condition for arm in data.arms]
    assert [row["samples a question"] for row in on_page] == [str(arm.samples) for arm in data.arms]
    assert [row["training seeds"] for row in on_page] == [row["seeds"] for row in in_text] == ["8", "9", "10", "11"]


def test_labels_have_their_numbers_under_their_heads(data: PageData) -> None:
    on_page, in_text = page_tables(data)["labels of"], markdown_tables(data)["pseudo-labels of"]
    expected = [("40", "31", "30", "11.0 %", "22.0 %", "33.0 %")]
    heads = ("questions", "voted", "kept", "coverage")
    assert columns(on_page, *heads, "right, of voted", "right, of kept") == expected
    assert columns(in_text, *heads, "right of voted", "right of kept") == expected


def test_claims_have_their_numbers_under_their_heads(data: PageData) -> None:
    on_page, in_text = page_tables(data)["claim"], markdown_tables(data)["claim"]
    for row, line, one in zip(on_page, in_text, data.verdicts, strict=True):
        found = one.comparison
        assert found is not None
        mark = "" if found.level == 0.95 else f" ({100 * found.level:.4g} %)"  # what Holm leaves this claim
        expected = (one.claim, points(found.difference), limits(found.ci) + mark, show_p(0.0123), show_p(0.234), "120")
        heads = ("claim", "difference points", "interval 95 %", "p", "adjusted p", "n")
        assert tuple(row[head] for head in heads) == expected
        heads = ("claim", "difference (points)", "95 % interval", "p", "adjusted p", "n")
        assert tuple(line[head] for head in heads) == expected
        assert row["verdict"].endswith(one.verdict) and line["verdict"] == one.verdict
        assert row["about"] == line["about"] == one.about and row["test"] == line["test"] == found.test


def test_a_line_of_the_csv_says_of_a_claim_what_was_judged(data: PageData) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(data))))
    assert data.answer is not None
    found = [(row["role"], row["claim_text"], row["claim_verdict"], row["holds"], row["mark"]) for row in rows]
    assert found[:3] == [
        ("declared", "better > base", "BETTER", "yes", ""),
        ("declared", "same > base", "UNRESOLVED", "undecided", ""),
        ("late", "late > base", "UNRESOLVED", "undecided", "EXPLORATORY: late"),
    ]
    assert {one[0] for one in found[3:]} == {"exploratory"} and len(found) == 3 + len(data.answer.exploratory)
    for row, one in zip(rows, [*data.verdicts, *data.late], strict=False):
        assert one.comparison is not None and one.comparison.ci is not None
        assert (float(row["p"]), float(row["p_adjusted"])) == (0.0123, 0.234)
        assert (float(row["ci_low"]), float(row["ci_high"])) == one.comparison.ci
        assert float(row["difference"]) == one.comparison.difference


def test_a_late_claims_mark_is_on_the_page_and_in_the_text(data: PageData) -> None:
    page = render_page(data)
    assert '<strong class="exploratory">EXPLORATORY: late.</strong>' in page
    assert "Claims written after their results" in page
    assert "- late > base: EXPLORATORY: late" in as_markdown(data)
    assert "a family of 2, p adjusted by Holm, level 0.05" in page
