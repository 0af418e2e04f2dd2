"""What a finished experiment says, in one screen: arms with intervals, pseudo-labels, warnings, verdicts.

    print_summary(connection, console, "quickstart", spec_digest, hypotheses, question)
    summary_json(connection, "quickstart", spec_digest, hypotheses)      # the same as plain data

An arm's interval is t over seed means where it has several training seeds, Wilson for right-or-wrong answers,
else the cluster bootstrap by question. Seeds that train nothing are no seeds of an arm (`runs.Arm`). Every answer
counts: a failed one scores 0, a truncated one what its text scores, and their shares are shown.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from reports import stats
from reports.answer import Answer, answer
from reports.label_quality import LabelQuality, label_quality
from reports.metrics import UNITS
from reports.noise import Noise, noise_floor, noise_sentence
from reports.pairs import RESAMPLING_SEED
from reports.render import show, show_interval
from reports.render_answer import answer_facts, print_answer
from reports.runs import Arm, Run, Values, all_runs, load_values, measured_by, run_names
from reports.text_table import Cell, lay_out, paragraph, show_lines, width_of
from reports.versions import as_version, current_version, versions_of
from reports.words import percent

if TYPE_CHECKING:
    import duckdb
    from rich.console import Console
    from rich.text import Text

    from reports.runs import Floats

BAR_WIDTH = 30
WARNINGS_SHOWN = 8


@dataclass(frozen=True)
class ArmSummary:
    """One condition over all its seeds. Without a result `mean` is None and `status` says why.

    `seeds` are training seeds, `seed_means` has a value for each distinct model, `samples` counts those of a question
    over all draws of one, `copies` the runs that repeat another to the letter and count for nothing.
    """

    condition: str
    runs: list[str]
    metric: str | None
    mean: float | None
    ci: tuple[float, float] | None
    interval: str | None
    n: int
    samples: int
    seeds: list[int]
    seed_means: list[float]
    truncated: float | None
    failed: float | None
    status: str
    copies: int = 0


def summary_json(
    connection: duckdb.DuckDBPyConnection,
    experiment: str,
    spec_digest: str | None,
    hypotheses: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Arms, labels, warnings and verdicts of one version of a spec as plain data."""
    with _version_runs(connection, experiment, spec_digest) as runs:
        return {
            "experiment": experiment,
            "arms": [asdict(arm) for arm in summarise_arms(connection, runs)],
            "labels": [asdict(label) for label in label_quality(connection, runs)],
            "noise": [one.to_json() for one in noise_floor(connection, runs)],
            "warnings": _warnings(connection, runs),
            **answer_facts(answer(connection, experiment, spec_digest, hypotheses=hypotheses)),
        }


@contextlib.contextmanager
def _version_runs(
    connection: duckdb.DuckDBPyConnection, experiment: str, spec_digest: str | None
) -> Iterator[list[str]]:
    """The names of a version's runs, in the order of its conditions; inside, everything is read of these alone."""
    current = current_version(versions_of(connection, experiment), spec_digest)
    with as_version(connection, experiment, current.spec_digest if current else None):
        yield run_names(connection, experiment, current.conditions if current else ())


def summarise_arms(
    connection: duckdb.DuckDBPyConnection, runs: Sequence[str], level: float = 0.95, metric: str | None = None
) -> list[ArmSummary]:
    """One summary per condition of the named runs, in the order of first naming; by another `metric` where given."""
    finished, unfinished = all_runs(connection)
    places = {
        run: (condition or run) for run, condition in connection.execute("SELECT run, condition FROM runs").fetchall()
    }
    grouped: dict[str, list[str]] = {}
    for run in runs:
        grouped.setdefault(places.get(run, run), []).append(run)
    arms = {
        condition: Arm(condition, tuple(finished[run] for run in names if run in finished))
        for condition, names in grouped.items()
    }
    if metric is not None:
        arms = {condition: measured_by(arm, metric) for condition, arm in arms.items()}
    values = load_values(connection, [arm for arm in arms.values() if arm.runs], metric=metric)
    return [_arm(arms[condition], names, unfinished, values, level) for condition, names in grouped.items()]


def _arm(arm: Arm, names: list[str], unfinished: Mapping[str, str], values: Values, level: float) -> ArmSummary:
    waiting = [f"{name}: {unfinished.get(name, 'not run')}" for name in names if name not in {r.name for r in arm.runs}]
    status = "; ".join(waiting) or "done"
    if not arm.runs:
        return ArmSummary(arm.name, names, None, None, None, None, 0, 0, [], [], None, None, status)
    first = arm.runs[0]
    truncated, failed = (_mean_of(shares, arm) for shares in (values.truncated, values.failed))
    if first.counts is not None:
        right, n = first.counts
        interval, means = stats.wilson(right, n, level), [right / n]
    else:
        per_question = [_per_question(draws, values) for draws in arm.observations]
        means, n = [float(found.mean()) for found in per_question if len(found)], len(per_question[0])
        if len(per_question) > 1:
            interval = stats.paired_t(means, level, "seeds").interval
            interval = interval if interval is None or first.metric in UNITS else interval.as_share()
        elif ((per_question[0] == 0) | (per_question[0] == 1)).all():
            interval = stats.wilson(round(float(per_question[0].sum())), n, level)
        else:
            interval = stats.cluster_bootstrap(per_question[0], seed=RESAMPLING_SEED, level=level)
    return ArmSummary(
        condition=arm.name,
        runs=[run.name for run in arm.runs],
        metric=first.metric,
        mean=sum(means) / len(means) if means else None,
        ci=None if interval is None else (interval.low, interval.high),
        interval=None if interval is None else interval.name,
        n=n,
        samples=sum(run.samples for run in arm.observations[0]),
        seeds=arm.seeds,
        seed_means=means,
        truncated=truncated,
        failed=failed,
        status=status,
        copies=len(arm.copies),
    )


def _per_question(draws: Sequence[Run], values: Values) -> Floats:
    """Values of the questions that every draw from the same weights answered, their mean over the draws."""
    rows = [values.row[str(run.eval_digest)] for run in draws]
    found: Floats = values.matrix[rows][:, values.present[rows].all(axis=0)].mean(axis=0)
    return found


def _mean_of(shares: Mapping[str, float], arm: Arm) -> float | None:
    known = [shares[str(run.eval_digest)] for run in arm.runs if run.eval_digest in shares]
    return sum(known) / len(known) if known else None


def _warnings(connection: duckdb.DuckDBPyConnection, runs: Sequence[str]) -> list[dict[str, Any]]:
    """What training stages warned about, each text once a run with the step of its first sight."""
    rows = connection.execute(
        "SELECT r.run, min(e.step), e.text, any_value(e.field) FROM events e "
        "JOIN runs r ON e.digest IN (r.train_digest, r.label_digest, r.eval_digest) "
        "WHERE r.run IN (SELECT unnest(?::TEXT[])) GROUP BY r.run, e.text ORDER BY r.run, 2",
        [list(runs)],
    ).fetchall()
    return [{"run": run, "step": step, "text": text, "field": field} for run, step, text, field in rows]


# --------------------------------------------------------------------------- on the screen


def print_summary(
    connection: duckdb.DuckDBPyConnection,
    console: Console,
    experiment: str,
    spec_digest: str | None,
    hypotheses: Mapping[str, Any] | None,
    question: str | None = None,
    wide: bool = False,
) -> Answer:
    """Print the end of a run of one version of a spec, the answer first. Returns the answer that was shown.

    What is printed fits the console; with `wide` the table of claims has every column.
    """
    width = width_of(console, wide)
    with _version_runs(connection, experiment, spec_digest) as runs:
        found = answer(connection, experiment, spec_digest, hypotheses=hypotheses)
        if question:
            show_lines(console, [*paragraph(f"{experiment}: {' '.join(question.split())}", width, 0), ""])
        if found.verdicts or found.late:
            print_answer(found, console, pairs=False, wide=wide)
        else:
            none = "No hypothesis was declared in the spec; nsd compare tests any pair."
            lines = [none, found.runs_line(), *(f"note: {note}" for note in found.notes)]
            show_lines(console, [part for line in lines for part in paragraph(line, width)])
        arms = summarise_arms(connection, runs)
        show_lines(console, ["", *_arms_lines(arms, width)])
        labels = label_quality(connection, runs)
        if labels:
            show_lines(console, ["", *_labels_lines(labels, width), ""])
            for label in {tuple(one.histogram): one for one in labels if one.histogram}.values():
                show_lines(console, _histogram_lines(label, width))
        repeats = noise_floor(connection, runs)
        if repeats:
            show_lines(console, ["", *_noise_lines(repeats, width), ""])
            for line in (noise_sentence(repeats), *dict.fromkeys(f"- {one.note}" for one in repeats if one.note)):
                show_lines(console, paragraph(line, width))
        _print_warnings(_warnings(connection, runs), console, width)
    return found


def _print_warnings(warnings: Sequence[Mapping[str, Any]], console: Console, width: int | None) -> None:
    if warnings:
        show_lines(console, [""])
    for warning in warnings[:WARNINGS_SHOWN]:
        field = f" (field {warning['field']})" if warning["field"] else ""
        step = "" if warning["step"] is None else f"step {warning['step']}: "
        show_lines(console, paragraph(f"warning, {warning['run']}, {step}{warning['text']}{field}", width))
    if len(warnings) > WARNINGS_SHOWN:
        show_lines(console, [f"and {len(warnings) - WARNINGS_SHOWN} more warnings: nsd show RUN has them"])


def _arms_lines(arms: Sequence[ArmSummary], width: int | None) -> list[Text | str]:
    many = any(len(arm.seed_means) > 1 for arm in arms)
    metric = next((arm.metric for arm in arms if arm.metric), "accuracy")
    columns = ["arm", metric, "95% interval", "n", "truncated", *(["seeds"] if many else [])]
    rows, below = [], []
    for arm in arms:
        row = [arm.condition, show(arm.mean), show_interval(arm.ci), str(arm.n or "-"), percent(arm.truncated)]
        rows.append([Cell(cell) for cell in [*row, *([_seeds(arm)] if many else [])]])
        below += [f"- {arm.condition}: measured by {arm.metric}"] if arm.metric not in (None, metric) else []
        below += [f"- {arm.condition}: {arm.status}"] if arm.status != "done" else []
    right = [name for name in columns if name not in ("arm", "95% interval")]
    lines: list[Text | str] = [*lay_out(columns, rows, width, right)]
    return [*lines, *(part for line in below for part in paragraph(line, width))]


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
