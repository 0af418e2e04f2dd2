"""nsd from Python: run and compare experiments, read results, write plugins.

    import nsd

    outcome = nsd.run("specs/quickstart.yaml")
    for verdict in nsd.compare("quickstart/base/seed42", "quickstart/oracle/seed42"):
        print(verdict.to_json())
    rows = nsd.load_results("quickstart/*")          # one dictionary per run

Everything takes `workspace=`, a folder; the default is NSD_WORKSPACE, else ./nsd-workspace. Errors are
`nsd.NsdError` and its kinds, as the command line prints them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plugins.api import (
    Completion,
    Dataset,
    DatasetConfig,
    Engine,
    Example,
    Labeler,
    NestedPlugin,
    OutputNeutral,
    PluginConfig,
    Pools,
    Prompt,
    Protocol,
    PseudoLabel,
    Question,
    Request,
    Reward,
    Sampling,
    Score,
    Scored,
    SpecPath,
    StopReason,
    Trainer,
    TrainJob,
    TrainResult,
    Verifier,
    question_id,
)
from plugins.errors import InputError, Interrupted, MissingExtra, NsdError, StageFailed
from plugins.registry import plugin
from plugins.seeds import stream

if TYPE_CHECKING:
    from reports.answer import Answer
    from reports.comparison import Comparison
    from runner.execute import Outcome
    from runner.plan import Plan

__all__ = [
    "Completion",
    "Dataset",
    "DatasetConfig",
    "Engine",
    "Example",
    "InputError",
    "Interrupted",
    "Labeler",
    "MissingExtra",
    "NestedPlugin",
    "NsdError",
    "OutputNeutral",
    "PluginConfig",
    "Pools",
    "Prompt",
    "Protocol",
    "PseudoLabel",
    "Question",
    "Request",
    "Reward",
    "Sampling",
    "Score",
    "Scored",
    "SpecPath",
    "StageFailed",
    "StopReason",
    "TrainJob",
    "TrainResult",
    "Trainer",
    "Verifier",
    "answer",
    "compare",
    "load_results",
    "plan",
    "plugin",
    "question_id",
    "run",
    "stream",
]


def plan(
    spec: str | Path,
    *,
    only: Sequence[str] = (),
    seeds: Sequence[int] = (),
    smoke: bool = False,
    repeat_eval: int = 0,
    run_files: bool = False,
) -> Plan:
    """The stages of a spec with their digests. Raises InputError for a bad spec, split or model.

    A plugin in a file is run only with `run_files`; without, a spec that names one cannot be planned.
    """
    from runner.plan import build_plan
    from runner.spec import load_spec

    return build_plan(load_spec(Path(spec), run_files=run_files), only, seeds, smoke, repeats=repeat_eval)


def run(
    spec: str | Path,
    *,
    only: Sequence[str] = (),
    seeds: Sequence[int] = (),
    smoke: bool = False,
    repeat_eval: int = 0,
    workspace: str | Path | None = None,
) -> Outcome:
    """Run whatever of a spec is not finished. The outcome says what ran, failed or was interrupted.

    `repeat_eval` evaluates every run that many more times with other sampling seeds.
    """
    from runner.execute import execute
    from runner.plan import build_plan
    from runner.spec import load_spec

    experiment = load_spec(Path(spec), run_files=True)
    planned = build_plan(experiment, only, seeds, smoke, pin=True, repeats=repeat_eval)
    return execute(planned, _workspace(workspace))


def compare(
    *runs: str,
    alpha: float = 0.05,
    correction: str = "bh",
    test: str | None = None,
    claim: str | None = None,
    baseline: str | None = None,
    metric: str | None = None,
    margin: float | None = None,
    force: bool = False,
    workspace: str | Path | None = None,
) -> list[Comparison]:
    """Every pair of the runs named (patterns too), in order; the options are those of `nsd compare`."""
    from reports.compare import compare_runs
    from runner.store import Store

    with Store(_workspace(workspace)).read() as connection:
        return compare_runs(
            connection,
            list(runs),
            alpha=alpha,
            correction=correction,
            test=test,
            force=force,
            claim=claim,
            baseline=baseline,
            metric=metric,
            margin=margin,
        )


def answer(experiment: str, *, workspace: str | Path | None = None) -> Answer:
    """What an experiment says: its declared claims as one family, everything else as another."""
    from reports.answer import answer as find_answer
    from runner.store import Store

    with Store(_workspace(workspace)).read() as connection:
        return find_answer(connection, experiment)


def load_results(pattern: str = "*", *, workspace: str | Path | None = None) -> list[dict[str, Any]]:
    """Runs with their results, one dictionary each, like `nsd runs --json`."""
    from runner.views import run_rows

    return run_rows(_workspace(workspace), pattern)


def _workspace(given: str | Path | None) -> Any:
    from runner.artifacts import Workspace

    return Workspace.locate(Path(given) if given is not None else None)
