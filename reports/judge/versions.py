"""The versions of a spec: the one that an answer is about, its runs, and the claims that every version declared.

    current = current_version(versions_of(connection, "quickstart"), wanted_digest)
    with as_version(connection, "quickstart", current.spec_digest):
        ...                                   # `current_runs` holds what that version asked for, and no more

An experiment's name may stand for several versions of a spec, with other seeds, claims or settings. The index's `runs`
has those of every version, its `current_runs` the run that each name stands for today, of whichever version: an answer
made of all of these could mix versions.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from nsd.plugins.api import OutputNeutral, SpecPath
from nsd.plugins.errors import InputError
from nsd.plugins.registry import find, is_path
from nsd.runner.store.shapes import Claim, Hypotheses

if TYPE_CHECKING:
    import duckdb

# The key of a block in a resolved spec, and the plugin kind it names.
_KINDS = {"data": "dataset", "train_verifier": "verifier", "eval": "protocol"}
_KINDS |= {kind: kind for kind in ("verifier", "engine", "labeler", "trainer", "protocol")}
_SHAPES_RESULTS = ("conditions", "match")  # of a resolved spec; further seeds are more data, not another experiment


@dataclass(frozen=True)
class Version:
    """One recorded version of a spec: when it was first written down, when it was last taken up, what it claimed."""

    spec_digest: str
    recorded_at: datetime
    run_at: datetime
    question: str | None
    hypotheses: Hypotheses
    rest: str  # what shapes results in the spec, to see whether more than its hypotheses was changed
    conditions: tuple[str, ...] = ()
    measured: Mapping[str, str] = field(default_factory=dict)  # by condition and `condition@evaluation`
    named: bool = False  # whether its evaluations have names

    def measures_as(self, other: Version, claim: Claim) -> bool:
        """Whether a claim speaks of the same measurement in both: a name, or the first place, may have another by now.

        Of specs with one evaluation nothing is asked: another evaluation there has results of its own.
        """
        sides = (claim.better, claim.worse)
        return not (self.named or other.named) or all(self.measured.get(s) == other.measured.get(s) for s in sides)

    @property
    def claims(self) -> dict[str, Claim]:
        """Claims under a text that holds everything that decides a verdict: what is claimed and by which rules."""
        return claims_of(self.hypotheses)


def claims_of(hypotheses: Hypotheses) -> dict[str, Claim]:
    """Claims of a hypotheses block by an identity made of claim and rules (alpha, correction, looks)."""
    rules = [hypotheses.alpha, hypotheses.correction, hypotheses.looks]
    return {json.dumps([said_by(claim), rules]): claim for claim in hypotheses.claims}


def said_by(claim: Claim) -> str:
    """A claim's statement without the rules it is judged by: the same text means the same test.

    Another margin is another claim: it is a test of its own. Another alpha, correction or number of looks is not.
    """
    if claim.by is not None:  # a difference that differs has no first side
        return json.dumps([claim.kind, *sorted((claim.better, claim.worse)), claim.by])
    return json.dumps([claim.kind, claim.better, claim.worse, claim.margin])


def versions_of(connection: duckdb.DuckDBPyConnection, experiment: str) -> list[Version]:
    """Recorded versions of an experiment's spec, oldest first."""
    rows = connection.execute(
        "SELECT spec_digest, recorded_at, run_at, question, hypotheses, resolved FROM experiments "
        "WHERE experiment = ? ORDER BY recorded_at, spec_digest",
        [experiment],
    ).fetchall()
    found = []
    for digest, recorded_at, run_at, question, hypotheses, resolved in rows:
        spec = json.loads(resolved) or {}
        rest = json.dumps(_shaping({key: spec.get(key) for key in _SHAPES_RESULTS}), sort_keys=True)
        claimed = Hypotheses.from_json(json.loads(hypotheses) or {}, f"the record {digest} of {experiment}")
        known = (digest, recorded_at, run_at, question, claimed, rest)
        conditions = spec.get("conditions") or {}
        measured = {name: how for condition, said in conditions.items() for name, how in _measured(condition, said)}
        named = any(said.get("evals") for said in conditions.values())
        found.append(Version(*known, tuple(conditions), measured, named))
    return found


def _shaping(said: Any) -> Any:
    """A resolved spec, or a part of it, without what changes no output of its blocks: a limit in dollars, a batch size.

    A block whose plugin is not here, or is a file, stays whole.
    """
    if isinstance(said, list):
        return [_shaping(one) for one in said]
    if not isinstance(said, dict):
        return said
    found = {key: _shaping(value) for key, value in said.items()}
    for key, kind in _KINDS.items():
        block = found.get(key)
        if isinstance(block, dict) and isinstance(use := block.get("use"), str) and not is_path(use):
            with contextlib.suppress(InputError):
                found[key] = _without_neutral(find(kind, use).Config.model_fields, block)
    return found


def _without_neutral(fields: Mapping[str, FieldInfo], block: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name, value in block.items():
        marks = fields[name].metadata if name in fields else []
        # A file is no setting: its path changes nothing, and what is in it may be another's.
        if any(isinstance(one, OutputNeutral) for one in marks) and not any(isinstance(one, SpecPath) for one in marks):
            continue
        inner = fields[name].annotation if name in fields else None
        if isinstance(value, dict) and isinstance(inner, type) and issubclass(inner, BaseModel):
            value = _without_neutral(inner.model_fields, value)
        found[name] = value
    return found


def _measured(condition: str, said: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """A condition's name as each of its evaluations measures it, and what that is."""
    own = {key: said.get(key) for key in ("data", "prompt", "verifier")}
    single = {"protocol": said.get("eval")}
    for number, one in enumerate(said.get("evals") or [single]):
        how = json.dumps({**own, **{key: value for key, value in one.items() if key != "name"}}, sort_keys=True)
        yield (f"{condition}@{one['name']}" if number else condition), how


def declared_earlier(versions: Sequence[Version], present: Sequence[Claim]) -> list[Claim]:
    """Claims of any recorded version that are not among the `present` ones, each once, oldest first."""
    held = {said_by(claim) for claim in present}
    found: dict[str, Claim] = {}
    for version in versions:
        for claim in version.hypotheses.claims:
            if said_by(claim) not in held:
                found.setdefault(said_by(claim), claim)
    return list(found.values())


def current_version(versions: Sequence[Version], wanted: str | None = None) -> Version | None:
    """The version asked for where it is on record, else the one last run; None where there is none."""
    asked = next((version for version in versions if version.spec_digest == wanted), None)
    return asked or max(versions, key=lambda version: version.run_at, default=None)


@contextlib.contextmanager
def as_version(connection: duckdb.DuckDBPyConnection, experiment: str, spec_digest: str | None) -> Iterator[None]:
    """Let `current_runs` be those of one version of an experiment's spec, and of nothing else.

    Inside another such block, or for a version whose runs the index does not hold, nothing changes.
    """
    shadow = "SELECT 1 FROM duckdb_tables() WHERE temporary AND table_name = 'current_runs'"
    inside = connection.execute(shadow).fetchone()
    key = [experiment, spec_digest]
    held = connection.execute("SELECT 1 FROM runs WHERE experiment = ? AND spec_digest = ? LIMIT 1", key)
    if inside or not held.fetchone():
        yield
        return
    connection.execute(
        "CREATE TEMP TABLE current_runs AS SELECT * FROM runs WHERE experiment = ? AND spec_digest = ? ORDER BY place",
        key,
    )
    try:
        yield
    finally:
        connection.execute("DROP TABLE temp.current_runs")


@dataclass(frozen=True)
class Elsewhere:
    """Seeds with a result under other versions of a spec that the version shown does not have."""

    seeds: tuple[int, ...]
    versions: tuple[str, ...]

    def sentence(self) -> str:
        """What is left out."""
        said = f"seed{'' if len(self.seeds) == 1 else 's'} {', '.join(map(str, self.seeds))}"
        other = f"version{'' if len(self.versions) == 1 else 's'} {', '.join(one[:8] for one in self.versions)}"
        return f"not in this answer: {said}, run under {other} of this spec"


def seeds_elsewhere(
    connection: duckdb.DuckDBPyConnection, experiment: str, spec_digest: str | None
) -> Elsewhere | None:
    """Finished seeds of this experiment's other versions that this version lacks; None where there are none."""
    rows = connection.execute(
        "SELECT DISTINCT v.seed, v.spec_digest FROM runs v JOIN eval_info USING (eval_digest) "
        "WHERE v.experiment = $1 AND v.spec_digest <> $2 AND v.seed NOT IN "
        "(SELECT seed FROM runs WHERE experiment = $1 AND spec_digest = $2) ORDER BY 1, 2",
        [experiment, spec_digest],
    ).fetchall()
    if not rows:
        return None
    return Elsewhere(tuple(dict.fromkeys(row[0] for row in rows)), tuple(sorted({row[1] for row in rows})))
