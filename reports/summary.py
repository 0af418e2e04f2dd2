"""What a finished experiment says, in one screen: arms with intervals, pseudo-labels, warnings, verdicts.

    print_summary(connection, console, "quickstart", spec_digest, hypotheses, question)
    summary_json(connection, "quickstart", spec_digest, hypotheses)      # the same as plain data

An arm's interval is t over seed means where it has several training seeds, Wilson for right-or-wrong answers,
else the cluster bootstrap by question. Seeds that train nothing are no seeds of an arm (`runs.Arm`). Every
answer counts: truncated and failed ones as wrong, their share shown.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from reports import stats
from reports.answer import Answer, answer
from reports.label_quality import LabelQuality, label_quality
from reports.noise import Noise, noise_floor, noise_sentence
from reports.pairs import RESAMPLING_SEED
from reports.render import plain_table, show, show_interval
from reports.render_answer import answer_facts, print_answer
from reports.runs import Arm, Run, Values, all_runs, load_values, measured_by, run_names
from reports.versions import as_version, current_version, versions_of
from reports.words import percent

if TYPE_CHECKING:
    import duckdb
    from rich.console import Console
    from rich.table import Table

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
) -> Answer:
    """Print the end-of-run tables of one version of a spec. Returns the answer that was shown."""
    with _version_runs(connection, experiment, spec_digest) as runs:
        return _print(connection, console, experiment, runs, spec_digest, hypotheses, question)


def _print(
    connection: duckdb.DuckDBPyConnection,
    console: Console,
    experiment: str,
    runs: Sequence[str],
    spec_digest: str | None,
    hypotheses: Mapping[str, Any] | None,
    question: str | None,
) -> Answer:
    from rich.text import Text

    if question:
        console.print(Text(f"{experiment}: {' '.join(question.split())}"))
    arms = summarise_arms(connection, runs)
    console.print(_arms_table(arms))
    labels = label_quality(connection, runs)
    if labels:
        console.print()
        console.print(_labels_table(labels))
        for label in {tuple(one.histogram): one for one in labels if one.histogram}.values():
            _print_histogram(label, console)
    repeats = noise_floor(connection, runs)
    if repeats:
        console.print()
        console.print(_noise_table(repeats))
        for line in (noise_sentence(repeats), *dict.fromkeys(f"- {one.note}" for one in repeats if one.note)):
            console.print(Text(line))
    warnings = _warnings(connection, runs)
    if warnings:
        console.print()
        for warning in warnings[:WARNINGS_SHOWN]:
            field = f" (field {warning['field']})" if warning["field"] else ""
            step = "" if warning["step"] is None else f"step {warning['step']}: "
            console.print(Text(f"warning, {warning['run']}, {step}{warning['text']}{field}"))
        if len(warnings) > WARNINGS_SHOWN:
            console.print(Text(f"and {len(warnings) - WARNINGS_SHOWN} more warnings: nsd show RUN has them"))
    found = answer(connection, experiment, spec_digest, hypotheses=hypotheses)
    console.print()
    if not (found.verdicts or found.late):
        console.print(Text("No hypothesis was declared in the spec; nsd compare tests any pair."))
    else:
        print_answer(found, console, pairs=False)
    return found


def _arms_table(arms: Sequence[ArmSummary]) -> Table:
    from rich.text import Text

    many = any(len(arm.seeds) > 1 for arm in arms)
    metric = next((arm.metric for arm in arms if arm.metric), "accuracy")
    columns = {"arm": "left", metric: "right", "95% interval": "left", "n": "right", "truncated": "right"}
    table = plain_table({**columns, **({"seeds": "right"} if many else {}), "": "left"})
    for arm in arms:
        state = "" if arm.status == "done" else arm.status
        odd = f"({arm.metric})" if arm.metric not in (None, metric) else ""
        row = [arm.condition, show(arm.mean), show_interval(arm.ci), str(arm.n or "-"), percent(arm.truncated)]
        if many:
            row.append(str(len(arm.seed_means)))
        table.add_row(*map(Text, [*row, " ".join(filter(None, (odd, state)))]))
    return table


def _noise_table(repeats: Sequence[Noise]) -> Table:
    from rich.text import Text

    right = ("repeats", "mean", "SD", "lowest", "highest", "questions that change", "pairs called different")
    table = plain_table({"same weights, sampled again": "left", **dict.fromkeys(right, "right")})
    for one in repeats:
        changed = "-" if one.discordant is None else f"{one.discordant:.1f} of {one.n}"
        numbers = (show(one.mean), show(one.sd), show(min(one.means)), show(max(one.means)), changed)
        table.add_row(*map(Text, (one.run, str(one.repeats), *numbers, f"{one.called_different} of {one.pairs}")))
    return table


def _labels_table(labels: Sequence[LabelQuality]) -> Table:
    from rich.text import Text

    right = ("questions", "voted", "kept", "coverage", "accuracy of voted", "accuracy of kept")
    table = plain_table({"pseudo-labels of": "left", **dict.fromkeys(right, "right")})
    for label in labels:
        numbers = (str(label.questions), str(label.voted), str(label.kept), percent(label.coverage))
        row = (", ".join(label.conditions), *numbers, percent(label.accuracy_voted), percent(label.accuracy_kept))
        table.add_row(*map(Text, row))
    return table


def _print_histogram(label: LabelQuality, console: Console) -> None:
    from rich.text import Text

    console.print(Text(f"confidence of the pseudo-labels ({label.questions} questions, share right)"))
    most = max(count for _, count, _ in label.histogram)
    for confidence, count, right in label.histogram:
        bar = "█" * max(1, round(BAR_WIDTH * count / most))
        console.print(Text(f"  {confidence:5.3f} {bar:<{BAR_WIDTH}} {count:>6}  {percent(right):>6}"))
