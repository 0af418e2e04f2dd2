"""A finished experiment on one screen: arms with intervals, pseudo-labels, warnings, verdicts.

    print_summary(connection, console, "quickstart", spec_digest, hypotheses, question)
    summary_json(connection, "quickstart", spec_digest, hypotheses)      # the same as plain data

An arm's interval is exact for right-or-wrong answers, over seeds and questions where it has several training seeds,
else the bounded mean by question (reports/judge/arms.py). Seeds that train nothing are no seeds of an arm
(`runs.Arm`). Every answer counts: a failed one scores 0, a truncated one what its text scores, and their shares are
shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nsd.plugins.layout import Cell, lay_out, paragraph, show_lines, width_of
from nsd.plugins.words import percent
from nsd.reports.judge.answer import Answer, answer
from nsd.reports.judge.arms import ArmSummary, RunWarning, by_measurement, summarise_arms, version_runs, warnings_of
from nsd.reports.judge.label_quality import LabelQuality, label_quality
from nsd.reports.judge.noise import Noise, noise_floor, noise_sentence
from nsd.reports.judge.searched import Searches, collect_searches
from nsd.reports.text.answer import answer_facts, print_answer
from nsd.reports.text.render import show, show_interval

if TYPE_CHECKING:
    import duckdb
    from rich.console import Console
    from rich.text import Text

    from nsd.runner.store.shapes import Hypotheses
    from nsd.runner.store.workspace import Workspace


BAR_WIDTH = 30
WARNINGS_SHOWN = 8


def summary_json(
    connection: duckdb.DuckDBPyConnection,
    experiment: str,
    spec_digest: str | None,
    hypotheses: Hypotheses | None,
    workspace: Workspace | None = None,
) -> dict[str, Any]:
    """Arms, labels, warnings and verdicts of one version of a spec as plain data."""
    with version_runs(connection, experiment, spec_digest) as runs:
        searches = collect_searches(connection, runs).arms
        return {
            "experiment": experiment,
            "arms": [asdict(arm) for arm in summarise_arms(connection, runs)],
            **({"searches": [asdict(one) for one in searches]} if searches else {}),
            "labels": [asdict(label) for label in label_quality(connection, runs)],
            "noise": [one.to_json() for one in noise_floor(connection, runs)],
            "warnings": [asdict(one) for one in warnings_of(connection, runs)],
            **answer_facts(answer(connection, experiment, spec_digest, hypotheses=hypotheses, workspace=workspace)),
        }


# --------------------------------------------------------------------------- on the screen


def print_summary(
    connection: duckdb.DuckDBPyConnection,
    console: Console,
    experiment: str,
    spec_digest: str | None,
    hypotheses: Hypotheses | None,
    question: str | None = None,
    wide: bool = False,
    workspace: Workspace | None = None,
) -> Answer:
    """Print the end of a run of one version of a spec, the answer first. Returns the answer that was shown.

    What is printed fits the console; with `wide` the table of claims has every column.
    """
    width = width_of(console, wide)
    with version_runs(connection, experiment, spec_digest) as runs:
        found = answer(connection, experiment, spec_digest, hypotheses=hypotheses, workspace=workspace)
        if question:
            show_lines(console, [*paragraph(f"{experiment}: {' '.join(question.split())}", width, 0), ""])
        if found.verdicts or found.late:
            print_answer(found, console, pairs=False, wide=wide)
        else:
            none = "No hypothesis was declared in the spec; nsd compare tests any pair."
            lines = [none, found.runs_line(), *(f"note: {note}" for note in found.notes)]
            show_lines(console, [part for line in lines for part in paragraph(line, width)])
        arms, others = by_measurement(summarise_arms(connection, runs))
        show_lines(console, ["", *_arms_lines(arms, width)])
        for measurement, beside in others.items():
            show_lines(console, ["", *_arms_lines(beside, width, f"on {measurement}")])
        if (searches := collect_searches(connection, runs)).arms:
            show_lines(console, ["", *_searches_lines(searches, width)])
        labels = label_quality(connection, runs)
        if labels:
            show_lines(console, ["", *_labels_lines(labels, width), ""])
            for label in {tuple(one.histogram): one for one in labels if one.histogram}.values():
                show_lines(console, _histogram_lines(label, width))
            for label in labels:
                if label.stopped is not None:
                    told = f"{', '.join(label.conditions)}: {label.stopped.sentence()}"
                    show_lines(console, [*paragraph(told, width), ""])
        repeats = noise_floor(connection, runs)
        if repeats:
            show_lines(console, ["", *_noise_lines(repeats, width), ""])
            for line in (noise_sentence(repeats), *dict.fromkeys(f"- {one.note}" for one in repeats if one.note)):
                show_lines(console, paragraph(line, width))
        _print_warnings(warnings_of(connection, runs), console, width)
    return found


def _print_warnings(warnings: Sequence[RunWarning], console: Console, width: int | None) -> None:
    if warnings:
        show_lines(console, [""])
    for warning in warnings[:WARNINGS_SHOWN]:
        field = f" (field {warning.field})" if warning.field else ""
        step = "" if warning.step is None else f"step {warning.step}: "
        show_lines(console, paragraph(f"warning, {warning.run}, {step}{warning.text}{field}", width))
    if len(warnings) > WARNINGS_SHOWN:
        show_lines(console, [f"and {len(warnings) - WARNINGS_SHOWN} more warnings: nsd show RUN has them"])


def _arms_lines(arms: Sequence[ArmSummary], width: int | None, title: str = "arm") -> list[Text | str]:
    many = any(len(arm.seed_means) > 1 for arm in arms)
    metric = next((arm.metric for arm in arms if arm.metric), "accuracy")
    columns = [title, metric, "95% interval", "n", "truncated", *(["seeds"] if many else [])]
    rows, below = [], []
    for arm in arms:
        row = [arm.condition, show(arm.mean), show_interval(arm.ci), str(arm.n or "-"), percent(arm.truncated)]
        rows.append([Cell(cell) for cell in [*row, *([_seeds(arm)] if many else [])]])
        below += [f"- {arm.condition}: measured by {arm.metric}"] if arm.metric not in (None, metric) else []
        below += [f"- {arm.condition}: {arm.status}"] if not arm.finished else []
    right = [name for name in columns if name not in (title, "95% interval")]
    lines: list[Text | str] = [*lay_out(columns, rows, width, right)]
    return [*lines, *(part for line in below for part in paragraph(line, width))]


def _searches_lines(searches: Searches, width: int | None) -> list[Text | str]:
    """Questions solved within some numbers of samples, and at the last the interval."""
    marks = searches.marks
    columns = ("arm", "solved", *(f"n={mark}" for mark in marks), "95% interval")
    rows = []
    for arm in searches.arms:
        points = [arm.within(mark) for mark in marks]
        last = points[-1].interval
        ends = "-" if last is None else f"[{last.low:.1%}, {last.high:.1%}]"
        cells = [searches.name(arm), f"{arm.solved} of {len(arm.cells)}", *(percent(point.share) for point in points)]
        rows.append([Cell(cell) for cell in (*cells, ends)])
    said = f"questions solved within n samples (Kaplan-Meier), with the log-log interval at n={marks[-1]}"
    table: list[Text | str] = [*lay_out(columns, rows, width, columns[1:-1])]
    return [*table, "", *paragraph(said, width)]


def _seeds(arm: ArmSummary) -> str:
    """How many training seeds there are; a dash where nothing is trained."""
    return str(len(arm.seeds)) if arm.seeds else "-"


def _noise_lines(repeats: Sequence[Noise], width: int | None) -> list[Text]:
    right = ("repeats", "mean", "SD", "lowest", "highest", "questions that change", "pairs called different")
    rows = []
    for one in repeats:
        changed = "-" if one.discordant is None else f"{one.discordant:.1f} of {one.n}"
        numbers = (show(one.mean), show(one.sd), show(min(one.means)), show(max(one.means)), changed)
        called = f"{one.called_different} of {one.pairs}" if one.pairs else "-"
        rows.append([Cell(cell) for cell in (one.run, str(one.repeats), *numbers, called)])
    return lay_out(("same weights, sampled again", *right), rows, width, right)


def _labels_lines(labels: Sequence[LabelQuality], width: int | None) -> list[Text]:
    right = ("questions", "voted", "kept", "coverage", "accuracy of voted", "accuracy of kept")
    rows = []
    for label in labels:
        numbers = (str(label.questions), str(label.voted), str(label.kept), percent(label.coverage))
        row = (", ".join(label.conditions), *numbers, percent(label.accuracy_voted), percent(label.accuracy_kept))
        rows.append([Cell(cell) for cell in row])
    return lay_out(("pseudo-labels of", *right), rows, width, right)


def _histogram_lines(label: LabelQuality, width: int | None) -> list[str]:
    lines = paragraph(f"confidence of the pseudo-labels ({label.questions} questions, share right)", width)
    most = max(count for _, count, _ in label.histogram)
    for confidence, count, right in label.histogram:
        bar = "█" * max(1, round(BAR_WIDTH * count / most))
        lines.append(f"  {confidence:5.3f} {bar:<{BAR_WIDTH}} {count:>6}  {percent(right):>6}")
    return lines
