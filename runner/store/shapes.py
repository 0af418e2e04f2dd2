"""The shapes of what lies on disk: a stage's manifest, an experiment's record, a note, a look, how a job ended.

    manifest = read_manifest(folder)        # Broken, with the file and the reason, where it cannot be used
    record = ExperimentRecord.from_json(found, path)
    record.runs[0].eval_digest, record.to_json()

`from_json` and `to_json` are the one place that reads and writes their JSON. Only what readers rely on is checked.
Fields that are absent or unknown are no fault: older and newer versions of nsd write fewer and more, and `to_json`
gives them back as they were read, in their order. A manifest speaks of its own folder, so that none can pass for
another's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from nsd.plugins.errors import NsdError
from nsd.plugins.metering import Usage
from nsd.plugins.paths import checked, part


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
Text = Annotated[str, BeforeValidator(lambda found: found if isinstance(found, str) else "")]
Int32 = Annotated[int, Field(ge=-(2**31), lt=2**31)]  # as wide as the index's columns
Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class Shape(BaseModel):
    """What a JSON object on disk holds. Made of keyword arguments, it is written in their order."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True, arbitrary_types_allowed=True)
    _json: dict[str, Any] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _keep(cls, found: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        made = handler(found)
        if isinstance(found, dict):
            made._json = found
        return made

    @classmethod
    def from_json(cls, found: dict[str, Any], place: Path | str) -> Self:
        """Raises Broken, with the place that the object came from, where it is of another shape."""
        try:
            return cls.model_validate(found)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise Broken(Path(place), f"{where}: {first['msg'][0].lower()}{first['msg'][1:]}") from error

    def to_json(self) -> dict[str, Any]:
        """Every field as it was given, those of other versions with it, in the order in which they were given."""
        return {name: _plain(value) for name, value in self._json.items()}

    def changed(self, **fields: Any) -> Self:
        """The same with some fields replaced or added."""
        return type(self).model_validate({**self.to_json(), **fields})


def _plain(value: Any) -> Any:
    if isinstance(value, Shape):
        return value.to_json()
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


class Facts(Shape):
    """Facts of a stage that are shown and kept, and not relied upon."""


class Warned(Shape):
    """A warning that a stage gave, with the field of the spec that it is about."""

    text: str
    step: Int32 | None = None
    field: str | None = None


class EvalInfo(Shape):
    """What an evaluation measured."""

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


class Imported(Shape):
    """A run of another tool's file; `counts` where nothing but right and total is known.

    With a training `seed` it is one of several runs of its `condition`. `together`: the runs of the same file, where
    there are several. `results`: a digest of its values and samples, whatever its name.
    """

    run: str
    results: str | None = None
    together: list[str] | None = None
    condition: str | None = None
    seed: Int64 | None = None
    eval_digest: Part | None = None
    counts: Annotated[list[Int64], AfterValidator(_counts)] | None = None


class Machine(Shape):
    """The machine that finished a stage."""

    gpus: list[str] = []
    gpu_peak_bytes: int | None = None  # the most that torch allocated on one GPU while the stage ran


class Cost(Shape):
    """Dollars, or the price of an hour of all machines."""

    usd: float | None = None
    usd_per_hour: float | None = None


class Served(Shape):
    """What a served model was asked (plugins/metering.py)."""

    requests: int
    retries: int
    prompt_tokens: int
    completion_tokens: int
    usd: float | None = None
    unknown: int = 0
    unknown_usd: float = 0.0
    answered_by: list[str] = []
    reproducible: bool = False

    @property
    def usage(self) -> Usage:
        """The same as whoever asks counts it."""
        return Usage.from_json(self.to_json())


class Answered(Shape):
    """What wrote a stage's texts in a process of its own (plugins/data.py)."""

    versions: dict[str, str] = {}
    weights: list[float] | None = None
    checked: bool = False


class SandboxInfo(Shape):
    """In what programs were run that nobody vouches for, and what that guaranteed where they ran."""

    kind: str
    guarantees: list[str]


class Generation(Shape):
    """What a stage drew. Of votes that may stop early also how many samples they asked for, and how many at most."""

    tokens: int | None = None
    completions: int | None = None
    wanted: int | None = None
    at_most: int | None = None


class Sampling(Shape):
    """How completions were drawn, as far as readers rely on it."""

    temperature: float | None = None


class Key(Shape):
    """What a stage's digest is of. The parts are the plan's; here only what readers rely on is named."""

    scheme: int | None = None
    sampling: Sampling | None = None


class Manifest(Shape):
    """What a finished stage says of itself."""

    kind: Part
    digest: Part
    plugin: str | None = None
    key: Key = Key()
    settings: Key | None = None
    inputs: dict[str, Part] = {}
    seed: Int64 | None = None
    data_hash: Part | None = None
    used_by: list[str] = []
    started_at: Time | None = None
    ended_at: Time | None = None
    seconds: float | None = None
    gpu_seconds: float | None = None
    packages: dict[str, str] = {}
    machine: Machine = Machine()
    git_commit: str | None = None
    cost: Cost | None = None
    served: Served | None = None
    answered: Answered | None = None
    events: list[Warned] = []
    eval: EvalInfo | None = None
    generation: Generation | None = None
    sandbox: SandboxInfo | None = None
    shared: dict[Part, int] = {}
    labels: Facts | None = None
    training: Facts | None = None
    discovery: Facts | None = None
    imported: list[Imported] = []
    source_file: str | None = None
    files: dict[Name, int] = {}
    sha256: dict[Name, str] = {}
    upload: str | None = None  # in a bucket: under which name its files lie
    _folder: Path = PrivateAttr(default=Path())

    @property
    def folder(self) -> Path:
        """Where it was read."""
        return self._folder

    @property
    def made_of(self) -> dict[str, Any]:
        """The plan's key of it with every default written out; before scheme 2 the key itself had them."""
        return (self.settings or self.key).to_json()

    @property
    def has_weights(self) -> bool:
        """Whether it names a model's files."""
        return any(name.startswith("model/") for name in self.files)

    def without(self, field: str) -> Manifest:
        """The same without a field that not every manifest has."""
        return Manifest.model_validate({name: value for name, value in self.to_json().items() if name != field})


class WordFailure(Shape):
    """A stage that failed in a job of a launch; `log_end` holds the last lines of its log."""

    stage: str
    kind: str
    used_by: list[str]
    reason: str
    log: str
    log_end: list[str] = []


class Word(Shape):
    """How a job of a launch said that it ended."""

    exit_code: int
    failures: list[WordFailure]


class RepeatRecord(Shape):
    """A repeated evaluation of a run; `needs` are the trainings behind it."""

    repeat: Int32
    eval_digest: Part
    needs: list[Part] = []


class RunRecord(Shape):
    """A run of an experiment. `status`: done, failed or pending.

    `measurement` names the evaluation where the spec names several, `beside` says that it is not the first.
    """

    run: str
    condition: str
    seed: Int64
    eval_digest: Part
    train_digest: Part | None
    label_digest: Part | None
    status: str
    reason: str | None = None
    needs: list[Part] = []
    repeats: list[RepeatRecord] = []
    started_at: Time | None = None
    ended_at: Time | None = None
    measurement: str | None = None
    beside: bool = False


class Claim(Shape):
    """A hypothesis about two conditions; `margin` belongs to not_worse_by and equivalent_within.

    `on` names the evaluation that decides it, None for the first; the conditions' names then say so too. `by` is the
    field of the questions that an interaction is about.
    """

    text: str
    kind: Literal["better", "not_worse_by", "equivalent_within", "interaction"]
    better: str
    worse: str
    margin: float | None = None
    on: str | None = None
    by: str | None = None


class Hypotheses(Shape):
    """The claims of a spec and the rules that they are judged by."""

    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    correction: Literal["holm", "bonferroni", "bh", "none"] = "holm"
    looks: Annotated[int, Field(ge=1)] | Literal["any"] | None = None
    detect: Annotated[float, Field(gt=0, lt=1)] | None = None
    claims: list[Claim] = []


class ResolvedSpec(Shape):
    """A spec with everything filled in, as far as readers rely on it."""

    conditions: dict[str, Any] | None = None


class ExperimentRecord(Shape):
    """One version of a spec that was run, and its runs."""

    experiment: str
    spec_digest: Part
    question: str | None
    spec_yaml: str
    resolved: ResolvedSpec
    hypotheses: Hypotheses | None
    recorded_at: Time
    run_at: Time | None = None
    runs: list[RunRecord]

    @property
    def taken_up_at(self) -> str:
        """When it was last taken up (ISO 8601): the latest version's runs are what its name stands for."""
        return self.run_at or self.recorded_at


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a stage's folder. Raises Broken."""
    path = folder / "manifest.json"
    found = Manifest.from_json(read_object(path), path)
    if f"{found.kind}-{found.digest}" != folder.name:
        raise Broken(path, f"it is of {found.kind}-{found.digest}")
    found._folder = folder
    return found


class Note(Shape):
    """What somebody wrote about a run or an experiment; a field that is no text in the journal is "" here."""

    run: Text = ""
    written_at: Text = ""
    text: Text = ""


class Sides(Shape):
    """Digests on each side of a pair."""

    a: list[str] = []
    b: list[str] = []


class Look(Shape):
    """That a pair was judged: on which evaluations (`evidence`), of which trainings (`train`), with what result.

    `by`: by which field of the questions, where it was looked at group by group.
    """

    a: str
    b: str
    evidence: Sides
    train: Sides | None = None
    by: str | None = None
    experiment: str | None = None
    metric: str | None = None
    n: int | None = None
    p: float | None = None
    verdict: str | None = None
    command: str | None = None
    looked_at: str | None = None


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
