"""`nsd labels`: what the pseudo-labels of some runs were like, as tables or JSON.

    print_labels(workspace, ["quickstart"], as_json=False)

Numbers come from reports/judge/label_quality.py. Limit: a curve of more than 20 confidences is shown at 20 of them,
evenly over coverage; the JSON has every one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from nsd.plugins.screen import console, print_json, table
from nsd.plugins.words import percent
from nsd.runner.store.index import Store
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.labelled import labelled_runs, name_of

if TYPE_CHECKING:
    from nsd.reports.judge.label_quality import Agreement, LabelQuality

ROWS_SHOWN = 20


# --------------------------------------------------------------------------- printing


def print_labels(workspace: Workspace, names: Sequence[str], as_json: bool) -> None:
    """Quality and agreement of every label set that the named runs were trained on."""
    from nsd.reports.judge.label_quality import label_quality, labeler_agreement

    with Store(workspace).read() as connection:
        runs = [run.run for run in labelled_runs(connection, names)]
        sets, pairs = label_quality(connection, runs), labeler_agreement(connection, runs)
    if as_json:
        print_json({"labels": [plain(one) for one in sets], "agreement": [plain(pair) for pair in pairs]})
        return
    _print_sets(sets)
    shown: dict[Any, list[LabelQuality]] = {}
    for one in sets:
        shown.setdefault((tuple(one.risk_coverage), tuple(one.calibration)), []).append(one)
    for same in shown.values():
        _print_curves(same[0], "; ".join(map(set_name, same)))
    if pairs:
        _print_agreement(pairs)


def plain(record: LabelQuality | Agreement) -> dict[str, Any]:
    """A dataclass as JSON-able data, its named tuples as objects."""
    made: dict[str, Any] = {}
    for field in fields(record):
        value = getattr(record, field.name)
        named = isinstance(value, list) and value and hasattr(value[0], "_asdict")
        made[field.name] = [item._asdict() for item in value] if named else value
        if hasattr(value, "_asdict"):
            made[field.name] = value._asdict()
    return made


def set_name(labels: LabelQuality) -> str:
    """Conditions of a label set with their seeds, as a person would say it."""
    return name_of(labels.conditions, labels.runs)


def _print_sets(sets: Sequence[LabelQuality]) -> None:
    right = ("questions", "with a label", "kept", "coverage", "right of labels", "right of kept", "calibration error")
    shown = table("pseudo-labels of", *right, right=right)
    for one in sets:
        error = one.expected_calibration_error
        counts = (str(one.questions), str(one.voted), str(one.kept), percent(one.coverage))
        accuracy = (_share(one.right_voted, one.known), _share(one.right_kept, one.known_kept))
        shown.add_row(set_name(one), *counts, *accuracy, "-" if error is None else f"{error:.3f}")
    screen = console()
    screen.print(shown)
    for one in sets:
        if one.stopped is not None:
            screen.print(f"{set_name(one)}: {one.stopped.sentence()}", soft_wrap=True)
        if one.voted == 0:
            screen.print(f"{set_name(one)}: no question got a label, so there is no curve")
        elif one.known == 0:
            screen.print(f"{set_name(one)}: no question's true answer is known, so nothing says which labels are right")
        elif one.known < one.voted:
            screen.print(
                f"{set_name(one)}: the truth is known for {one.known} of {one.voted} labels; shares are of those"
            )


def _share(right: int, known: int) -> str:
    return "-" if known == 0 else f"{right} ({right / known:.1%})"


def _print_curves(one: LabelQuality, title: str) -> None:
    screen = console()
    points = one.risk_coverage
    if not points:
        return
    thinned = points
    if len(points) > ROWS_SHOWN:
        # The last point at or under each twentieth of the way, so that the whole curve is seen.
        thinned = [points[round((i + 1) * len(points) / ROWS_SHOWN) - 1] for i in range(ROWS_SHOWN)]
    right = ("confidence at least", "labels", "coverage", "right")
    shown = table(*right, right=right)
    for point in thinned:
        shown.add_row(f"{point.confidence:.3f}", str(point.n), percent(point.coverage), percent(point.accuracy))
    screen.print(f"\nif only labels of some confidence were kept: {title}")
    screen.print(shown)
    if len(points) > ROWS_SHOWN:
        screen.print(f"{ROWS_SHOWN} of {len(points)} confidences; --json has all")
    if not one.calibration:
        return
    right = ("confidence", "labels", "right", "difference in points")
    shown = table(*right[:3], "95% interval", right[3], right=right)
    for found in one.calibration:
        interval = f"[{found.low:.1%}, {found.high:.1%}]"
        gap = f"{100 * (found.accuracy - found.confidence):+.1f}"
        shown.add_row(f"{found.confidence:.3f}", str(found.n), percent(found.accuracy), interval, gap)
    screen.print(f"\nis a label right as often as its confidence says: {title}")
    screen.print(shown)


def _print_agreement(pairs: Sequence[Agreement]) -> None:
    right = ("shared", "agree", "both right", "only A", "only B", "neither", "kappa of errors")
    shown = table("labels A", "labels B", *right, right=right)
    notes = []
    for pair in pairs:
        counts = (pair.both_right, pair.only_a_right, pair.only_b_right, pair.neither_right)
        kappa = "-" if pair.kappa is None else f"{pair.kappa:.3f}"
        names = (name_of(pair.a, pair.a_runs), name_of(pair.b, pair.b_runs))
        shown.add_row(*names, str(pair.shared), percent(pair.agree), *map(str, counts), kappa)
        if pair.note:
            notes.append(f"- {names[0]} | {names[1]}: {pair.note}")
    screen = console()
    screen.print("\nagreement of labelers")
    screen.print(shown)
    screen.print(
        "agree: of the questions that both label. kappa of errors: whether both are right and wrong on the same "
        "questions; 0 as by chance, 1 always"
    )
    for note in notes:
        screen.print(note)
