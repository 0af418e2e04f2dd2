"""The shapes of manifests and experiment records: the one place that reads their JSON.

    manifest = read_manifest(folder)        # Broken, with the file and the reason, where it cannot be used
    record = read_record(path)

Only what readers rely on is checked. Fields that are absent or unknown are no fault: older and newer versions of nsd
write fewer and more. A manifest speaks of its own folder, so that none can pass for another's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from nsd.plugins.errors import NsdError
from nsd.runner.store.paths import UnsafeName, checked, part


class Broken(NsdError):
    """A file of the workspace that cannot be used. `path` is the file, `reason` what is wrong with it."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} is broken: {reason}")
        self.path, self.reason = path, reason


def _time(text: str) -> str:
    datetime.fromisoformat(text)
    return text


Part = Annotated[str, AfterValidator(part)]
Name = Annotated[str, AfterValidator(checked)]
Time = Annotated[str, AfterValidator(_time)]
Int32 = Annotated[int, Field(ge=-(2**31), lt=2**31)]  # as wide as the index's columns
Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class _Shape(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", arbitrary_types_allowed=True)


class _Event(_Shape):
    text: str
    step: Int32 | None = None
    field: str | None = None


class _EvalInfo(_Shape):
    metric: str
    protocol: str
    data_hash: Part | None
    verifier_hash: str | None
    questions: Int32
    samples: Int32


def _counts(found: list[int]) -> list[int]:
    if len(found) != 2 or not 0 <= found[0] <= found[1] or found[1] == 0:
        raise ValueError("it should be how many are right, and of how many")
    return found


class _Imported(_Shape):
    run: str
    eval_digest: Part | None = None
    counts: Annotated[list[Int64], AfterValidator(_counts)] | None = None


class _Machine(_Shape):
    gpus: list[str] = []


class _Cost(_Shape):
    usd: float | None = None
    usd_per_hour: float | None = None


class _Generation(_Shape):
    tokens: int | None = None
    completions: int | None = None


class _Sampling(_Shape):
    temperature: float | None = None


class _Key(_Shape):
    sampling: _Sampling | None = None


class _Manifest(_Shape):
    kind: Part
    digest: Part
    plugin: str | None = None
    key: _Key = _Key()
    inputs: dict[str, Part] = {}
    seed: Int64 | None = None
    data_hash: Part | None = None
    used_by: list[str] = []
    started_at: Time | None = None
    ended_at: Time | None = None
    seconds: float | None = None
    gpu_seconds: float | None = None
    packages: dict[str, str] = {}
    machine: _Machine = _Machine()
    git_commit: str | None = None
    cost: _Cost | None = None
    events: list[_Event] = []
    eval: _EvalInfo | None = None
    generation: _Generation | None = None
    labels: dict[str, Any] | None = None
    training: dict[str, Any] | None = None
    imported: list[_Imported] = []
    files: dict[Name, int] = {}
    sha256: dict[Name, str] = {}


class _Failure(_Shape):
    stage: str
    kind: str
    used_by: list[str]
    reason: str
    log: str


class _Word(_Shape):
    exit_code: int
    failures: list[_Failure]


class _Repeat(_Shape):
    repeat: Int32
    eval_digest: Part
    needs: list[Part] = []


class _Run(_Shape):
    run: str
    condition: str
    seed: Int64
    eval_digest: Part
    train_digest: Part | None
    label_digest: Part | None
    status: str
    reason: str | None = None
    needs: list[Part] = []
    repeats: list[_Repeat] = []
    started_at: Time | None = None
    ended_at: Time | None = None


class _Claim(_Shape):
    text: str
    kind: Literal["better", "not_worse_by", "equivalent_within"]
    better: str
    worse: str
    margin: float | None = None


class _Hypotheses(_Shape):
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    correction: Literal["holm", "bonferroni", "bh", "none"] = "holm"
    looks: Annotated[int, Field(ge=1)] | None = None
    claims: list[_Claim] = []


class _Resolved(_Shape):
    conditions: dict[str, Any] | None = None


class _Record(_Shape):
    experiment: str
    spec_digest: Part
    question: str | None
    spec_yaml: str
    resolved: _Resolved
    hypotheses: _Hypotheses | None
    recorded_at: Time
    run_at: Time | None = None
    runs: list[_Run]


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a stage's folder. Raises Broken."""
    path = folder / "manifest.json"
    found = check_manifest(read_object(path), path)
    if f"{found['kind']}-{found['digest']}" != folder.name:
        raise Broken(path, f"it is of {found['kind']}-{found['digest']}")
    return found


def check_manifest(found: dict[str, Any], path: Path | str) -> dict[str, Any]:
    """A manifest as given. Raises Broken, with the place it came from, where it is of another shape."""
    return _checked(_Manifest, found, Path(path))


def read_record(path: Path) -> dict[str, Any]:
    """An experiment's record. Raises Broken."""
    return check_record(read_object(path), path)


def check_record(found: dict[str, Any], path: Path | str) -> dict[str, Any]:
    """A record as given. Raises Broken, with the place it came from, where it is of another shape."""
    return _checked(_Record, found, Path(path))


def read_word(path: Path) -> dict[str, Any]:
    """How a job of a launch said that it ended. Raises Broken."""
    return _checked(_Word, read_object(path), path)


def is_look(entry: Mapping[str, Any]) -> bool:
    """Whether a line of the journal of looks says who was held against whom, and on what evidence."""
    texts = all(isinstance(entry.get(name), str) for name in ("a", "b"))
    return texts and _has_sides(entry.get("evidence")) and (not entry.get("train") or _has_sides(entry["train"]))


def _has_sides(evidence: Any) -> bool:
    return isinstance(evidence, dict) and all(
        isinstance(side := evidence.get(name), list) and all(isinstance(one, str) for one in side) for name in "ab"
    )


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises Broken where there is none."""
    try:
        return parse_object(path.read_bytes(), path)
    except OSError as error:
        raise Broken(path, error.strerror or str(error)) from error


def parse_object(content: bytes, path: Path | str) -> dict[str, Any]:
    """The JSON object in some bytes. Raises Broken."""
    if not content.strip(b"\x00 \t\r\n"):
        raise Broken(Path(path), "it is empty")
    try:
        # NaN and Infinity are no JSON and no measurement: they count as unknown, as null does.
        found = json.loads(content, parse_constant=lambda _: None, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise Broken(Path(path), f"it is no JSON ({error})") from error
    if not isinstance(found, dict):
        raise Broken(Path(path), "it is no JSON object")
    return found


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _checked(shape: type[_Shape], found: dict[str, Any], path: Path) -> dict[str, Any]:
    try:
        shape.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise Broken(path, f"{place}: {first['msg'][0].lower()}{first['msg'][1:]}") from error
    except UnsafeName as error:
        raise Broken(path, str(error)) from error
    return found
