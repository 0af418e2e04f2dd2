"""nsd from Python: run and compare experiments, read results, write plugins.

    import nsd

    outcome = nsd.run("specs/quickstart.yaml")
    for verdict in nsd.compare("quickstart/baseline/seed42", "quickstart/filtered/seed42"):
        print(verdict.to_json())
    rows = nsd.load_results("quickstart/*")          # one dictionary per run

Everything takes `workspace=`, a folder; the default is NSD_WORKSPACE, else ./nsd-workspace. Errors are
`nsd.NsdError` and its kinds, as the command line prints them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Unpack

    from nsd.plugins.api import (
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
        Rollout,
        Sampling,
        Score,
        Scored,
        Search,
        Shown,
        SideFile,
        SpecPath,
        StopReason,
        Trainer,
        TrainJob,
        TrainResult,
        Verifier,
        question_id,
    )
    from nsd.plugins.errors import InputError, Interrupted, MissingExtra, NsdError, StageFailed
    from nsd.plugins.registry import plugin
    from nsd.plugins.seeds import stream
    from nsd.reports.judge.answer import Answer
    from nsd.reports.judge.compare import Options
    from nsd.reports.judge.comparison import Comparison
    from nsd.runner.plan.model import Plan
    from nsd.runner.work.execute import Outcome

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
    "Rollout",
    "Sampling",
    "Score",
    "Scored",
    "Search",
    "Shown",
    "SideFile",
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

# What is not of the base types of plugins. Each is imported when it is first asked for: `import nsd` stays quick, and
# whatever imports a module of ours imports this one first.
_HOMES = {
    "plugin": "nsd.plugins.registry",
    "stream": "nsd.plugins.seeds",
    **dict.fromkeys(("InputError", "Interrupted", "MissingExtra", "NsdError", "StageFailed"), "nsd.plugins.errors"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'nsd' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_HOMES.get(name, "nsd.plugins.api")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


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
    from nsd.runner.plan.build import build_plan
    from nsd.runner.spec.load import load_spec

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
    from nsd.runner.plan.build import build_plan
    from nsd.runner.spec.load import load_spec
    from nsd.runner.work.execute import execute
    from nsd.runner.work.ready import make_ready

    experiment = load_spec(Path(spec), run_files=True)
    planned = build_plan(experiment, only, seeds, smoke, pin=True, repeats=repeat_eval)
    return execute(planned, _workspace(workspace), settle=lambda pending: make_ready(planned, pending))


def compare(*runs: str, workspace: str | Path | None = None, **options: Unpack[Options]) -> list[Comparison]:
    """Every pair of the runs named (patterns too), in order.

    `options` are those of `nsd compare`: alpha, correction, test, force, claim, margin, baseline, metric, groups and
    looks (`nsd.reports.judge.compare.Options` says what each is).
    """
    from nsd.reports.judge.compare import compare_runs
    from nsd.runner.store.index import Store

    with Store(_workspace(workspace)).read() as connection:
        return compare_runs(connection, list(runs), **options)


def answer(experiment: str, *, workspace: str | Path | None = None) -> Answer:
    """What an experiment says: its declared claims as one family, everything else as another."""
    from nsd.reports.judge.answer import answer as find_answer
    from nsd.runner.store.index import Store

    place = _workspace(workspace)
    with Store(place).read() as connection:
        return find_answer(connection, experiment, workspace=place)


def load_results(pattern: str = "*", *, workspace: str | Path | None = None) -> list[dict[str, Any]]:
    """Runs with their results, one dictionary each, like `nsd runs --json`."""
    from nsd.reports.judge.rows import run_rows

    return run_rows(_workspace(workspace), pattern)


def _workspace(given: str | Path | None) -> Any:
    from nsd.runner.store.workspace import Workspace

    return Workspace.locate(Path(given) if given is not None else None)
