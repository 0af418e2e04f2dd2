"""What the log says of a version's results, kept in the workspace so that no version is judged twice.

    kept = KeptResults(workspace, connection, ["quickstart"])
    found = kept.of("quickstart", spec_digest)                 # None: judge it, by the same connection
    keep_results(workspace, {("quickstart", spec_digest): results}, kept.causes)

Results are kept under a digest of all that they come from: this nsd's files and the libraries that it computes with,
and what the index holds of the experiment: every version's record and runs, when each evaluation and training ended,
the looks taken. A change to any of these asks for another digest, and the version is judged anew. Evaluations are
known by their content, so their values need no second look. The truth is in the workspace: `results.json` may be
deleted at any time.

The digest is of what the judging itself saw. What is written meanwhile, its own looks too, gives another one: after a
log that records new looks the next one judges once more, since a look at one version can mark another.

Limits: a plugin of others that marks another field of its config as output-neutral is not noticed. Nothing is kept of
an experiment any version of which claims something about groups of questions, nor of what could not be judged: both
depend on more than the index.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsd.plugins.durable import write_atomically
from nsd.runner.store.workspace import Workspace, digest_of

if TYPE_CHECKING:
    import duckdb
    from pydantic import TypeAdapter

    from nsd.reports.judge.hypotheses import ClaimVerdict

Key = tuple[str, str]  # experiment and digest of a version of its spec

_PACKAGE = Path(__file__).parents[2]
_LIBRARIES = ("numpy", "scipy", "statsmodels")
_MINE = (
    "SELECT experiment, unnest([eval_digest, train_digest]) AS digest FROM runs UNION "
    "SELECT experiment, p.eval_digest FROM repeats p JOIN runs USING (run, spec_digest)"
)
# Rows as text, in an order of their own: those of the experiments asked for.
_CAUSES = {
    "experiments": "SELECT experiment, e::TEXT AS said FROM experiments e",
    "runs": "SELECT experiment, r::TEXT AS said FROM runs r",
    "looks": "SELECT experiment, l::TEXT AS said FROM looks l",
    "stages": f"SELECT experiment, (digest, ended_at)::TEXT AS said FROM ({_MINE}) JOIN stages USING (digest)",
    "measured": f"SELECT experiment, i::TEXT AS said FROM ({_MINE}) m JOIN eval_info i ON i.eval_digest = m.digest",
}


@dataclass(frozen=True)
class LogArm:
    """A condition with its mean over seeds, on `n` questions."""

    condition: str
    metric: str
    mean: float
    n: int
    seeds: int
    beside: bool = False  # measured by another evaluation than the spec's first


@dataclass(frozen=True)
class LogClaim:
    """A claim's verdict as the log tells it.

    `holds`, `mark` and `note` as in `ClaimVerdict`. The rest is None where nothing could be compared: the metric, the
    difference in it, the corrected p, and the questions that both arms answered.
    """

    claim: str
    verdict: str
    holds: bool | None
    mark: str
    note: str
    metric: str | None = None
    difference: float | None = None
    p_adjusted: float | None = None
    n: int | None = None

    @classmethod
    def of(cls, verdict: ClaimVerdict) -> LogClaim:
        """What of a verdict the log tells."""
        said = (verdict.claim, verdict.verdict.value, verdict.holds, verdict.mark, verdict.note)
        one = verdict.comparison
        return cls(*said) if one is None else cls(*said, one.metric, one.difference, one.p_adjusted, one.n)

    def line(self) -> str:
        """The verdict in a few words."""
        from nsd.reports.judge.comparison import amount, say_p
        from nsd.reports.judge.verdict import Verdict

        detail = self.note
        if self.difference is not None:
            moved = amount(self.difference, str(self.metric), signed=True)
            detail = f"{moved}, adjusted {say_p(self.p_adjusted)}, n = {self.n}"
        state = {True: "holds", False: "REFUTED", None: Verdict.UNRESOLVED.value}[self.holds]
        mark = f" [{self.mark}]" if self.mark else ""
        return f"{state}: {self.claim} ({detail}){mark}" if detail else f"{state}: {self.claim}{mark}"

    def to_json(self) -> dict[str, Any]:
        """Plain data under stable names."""
        return {name: value for name, value in vars(self).items() if name not in ("note", "metric")}


@dataclass(frozen=True)
class Results:
    """Of one version: its arms, the verdicts on claims declared in time and late, and why it cannot be judged."""

    arms: list[LogArm]
    verdicts: list[LogClaim] = field(default_factory=list)
    late: list[LogClaim] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


class KeptResults:
    """The results kept in a workspace that still hold, for some of its experiments.

    A file of them that cannot be read, or has another form, is no file. `causes` has by experiment the digest of all
    that its results come from.
    """

    def __init__(self, workspace: Workspace, connection: duckdb.DuckDBPyConnection, experiments: Iterable[str]) -> None:
        self._kept = _read(workspace.results)
        self.causes = causes_of(connection, experiments)

    def of(self, experiment: str, spec_digest: str) -> Results | None:
        """What is kept of a version; None where nothing is, or where something it comes from has changed."""
        entry: Any = self._kept.get(f"{experiment} {spec_digest}")
        if not _comes_from(entry, self.causes.get(experiment)):
            return None
        said = entry.get("said")
        with contextlib.suppress(ValueError):  # pydantic's errors are such
            found = _form().validate_json(json.dumps(said), strict=True)
            return found if asdict(found) == said else None  # a field more is another form
        return None


def keep_results(workspace: Workspace, found: Mapping[Key, Results], causes: Mapping[str, str]) -> None:
    """Keep these, judged on what `causes` (of `KeptResults`) are the digests of, beside what is kept already.

    What is kept of these experiments under other causes goes. A workspace that cannot be written keeps nothing: it is
    judged anew.
    """
    if not found:
        return
    kept = _read(workspace.results)
    for key in list(kept):
        experiment = key.rpartition(" ")[0]
        if experiment in causes and not _comes_from(kept[key], causes[experiment]):
            del kept[key]
    for (experiment, spec_digest), results in found.items():
        kept[f"{experiment} {spec_digest}"] = {"causes": causes[experiment], "said": asdict(results)}
    with contextlib.suppress(OSError):
        write_atomically(workspace.results, json.dumps(kept))


def _comes_from(entry: Any, cause: str | None) -> bool:
    return isinstance(entry, dict) and entry.get("causes") == cause


@functools.cache
def _form() -> TypeAdapter[Results]:
    from pydantic import TypeAdapter

    return TypeAdapter(Results)


def causes_of(connection: duckdb.DuckDBPyConnection, experiments: Iterable[str]) -> dict[str, str]:
    """By experiment the digest of all that its results come from."""
    names = sorted(set(experiments))
    found: dict[str, list[Any]] = {name: [_program()] for name in names}
    for what, rows in _CAUSES.items():
        said = connection.execute(
            f"SELECT experiment, md5(string_agg(said, chr(10) ORDER BY said)) FROM ({rows}) "
            "WHERE experiment IN (SELECT unnest(?::TEXT[])) GROUP BY 1",
            [names],
        ).fetchall()
        for experiment, digest in said:
            found[experiment].append([what, digest])
    return {name: digest_of(parts) for name, parts in found.items()}


@functools.cache
def _program() -> list[Any]:
    """This nsd's files by size and time, and the versions of what computes."""
    from importlib.metadata import version

    files = [Path(folder, name) for folder, _, names in os.walk(_PACKAGE, followlinks=True) for name in names]
    found = [(str(path.relative_to(_PACKAGE)), path.stat()) for path in sorted(files) if path.suffix == ".py"]
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in found] + [version(name) for name in _LIBRARIES]


def _read(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError, RecursionError):
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        if isinstance(found, dict):
            return found
    return {}
