"""The base types of everything a spec can name with `use:`, and the registry that finds them.

A plugin is one class with one pydantic `Config`, registered by `@plugin(kind, name)`:

    @plugin("verifier", "last_word")
    class LastWord(Verifier):
        class Config(PluginConfig):
            lowercase: bool = True

        def extract(self, completion: str) -> str | None:
            ...

Third parties register with the entry-point group `nsd.plugins` (the entry point's name is
`kind.name`), or a spec names a class in a file: `use: ./my_verifier.py:LastWord` (running that file).
Nothing in this module imports a heavy package; plugins import theirs inside the functions that need them.
"""

from __future__ import annotations

import enum
import hashlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field

KINDS = ("dataset", "verifier", "engine", "labeler", "trainer", "protocol", "reward")


class OutputNeutral:
    """Marks a config field that changes how fast or where a stage runs, never what comes out.

    Used as `Annotated[int, OutputNeutral()]`; such fields are left out of every digest.
    """


@dataclass(frozen=True)
class SpecPath:
    """Marks a config field (text, or a list of texts) that names a file or folder, counted from the spec's folder.

    Used as `Annotated[str, SpecPath()]`; a field of type `pathlib.Path` is one without a mark. With `hub` the text may
    be the name of a hub dataset as well: then it is a path where it looks like one or exists in the spec's folder.
    The field is no path where the field `unless` is given. The plugin gets the absolute path; digests keep the text.
    """

    hub: bool = False
    unless: str | None = None


@dataclass(frozen=True)
class NestedPlugin:
    """Marks a config field that holds a plugin block ({use: NAME, ...}), or a list of such blocks, of this kind.

    Used as `Annotated[dict[str, Any], NestedPlugin("reward")]`. The spec's reader checks what stands there like any
    other block; the plugin finds the class with `registry.find(kind, block["use"])`.
    """

    kind: str


class PluginConfig(BaseModel):
    """Base of every plugin's config: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Plugin:
    """Base of every plugin kind. `version` goes up whenever the same config gives other output."""

    kind: ClassVar[str]
    name: ClassVar[str]
    version: ClassVar[int] = 1

    class Config(PluginConfig):
        pass

    def __init__(self, config: Any = None) -> None:
        self.config: Any = config if config is not None else self.Config()  # of the class's own Config

    def digest_extra(self) -> dict[str, Any]:
        """What else decides the output beyond name, version and config, JSON-able (a file's content hash)."""
        return {}


PluginType = TypeVar("PluginType", bound=type[Plugin])


# --------------------------------------------------------------------------- data


def question_id(question: str) -> str:
    """Content hash of a question: 16 hex digits over NFC text with runs of white space folded to one blank."""
    text = " ".join(unicodedata.normalize("NFC", question).split())
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Question:
    """One problem. `answer` is what a verifier compares with; `solution` is the gold worked completion.

    Both are None where nobody knows them (NuminaMath used as unlabeled data). `context` is privileged
    text that only a teacher may see; `meta` holds what a verifier may need (level, tests, ...). `place` says in
    messages where the row stands (`train.jsonl:12`); it is no part of the question and enters no digest.
    """

    id: str
    text: str
    answer: str | None = None
    solution: str | None = None
    context: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    place: str | None = field(default=None, compare=False, repr=False)


class Prompt(BaseModel):
    """How a question becomes model input. `template` has `{question}`; other braces stay as they are."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    template: str = Field(default="{question}", description="Text with {question} where the question goes.")
    chat: bool = Field(default=False, description="Apply the tokenizer's chat template to a user message.")
    system: str | None = Field(default=None, description="System message; needs chat: true.")
    separator: str = Field(
        default=" ", description="What stands between a plain prompt and the completion in training text."
    )

    def render(self, question: Question) -> str | list[dict[str, str]]:
        """Return plain text, or chat messages (role, content) where `chat` is true."""
        text = self.template.replace("{question}", question.text)
        if not self.chat:
            return text
        system = [{"role": "system", "content": self.system}] if self.system is not None else []
        return [*system, {"role": "user", "content": text}]


class SplitConfig(PluginConfig):
    """How many questions go where. Counts are of distinct questions; `test: null` takes all there are."""

    labeled: int = Field(default=0, ge=0)
    unlabeled: int = Field(default=0, ge=0)
    test: int | None = Field(default=None, ge=0)
    seed: int = Field(default=42, ge=0, lt=2**32, description="Seed of the shuffle, the same for every run seed.")


class DatasetConfig(PluginConfig):
    """Base of every dataset's config."""

    split: SplitConfig = SplitConfig()


def without_truth(question: Question) -> Question:
    """The question as somebody who must not know its answer may see it: id and text alone."""
    return Question(id=question.id, text=question.text)


@dataclass(frozen=True)
class Pools:
    """What a dataset offers before splitting. `test` None means: cut the test split from `train`.

    `unlabeled` None means: take the unlabeled split from the rest of `train`. `notes` are sentences about
    the rows that a person should read (rows without an answer, rows a filter left out).
    """

    train: list[Question]
    test: list[Question] | None
    unlabeled: list[Question] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Splits:
    """Disjoint by question id. `unlabeled` keeps its hidden truth where the dataset has it."""

    labeled: list[Question]
    unlabeled: list[Question]
    test: list[Question]


class Dataset(Plugin):
    """Rows with question, gold answer, gold solution. Splitting is done by `nsd.plugins.datasets.split`."""

    kind = "dataset"
    default_prompt: ClassVar[Prompt] = Prompt()
    default_verifier: ClassVar[str] = "numeric"

    class Config(DatasetConfig):
        pass

    def pools(self) -> Pools:
        """Load every row. Raises InputError where a file or field is missing."""
        raise NotImplementedError

    def source_files(self) -> list[Path]:
        """Local files the rows come from, [] for generated or hub data (used only to cache loading)."""
        return []


# --------------------------------------------------------------------------- completions and verdicts


class StopReason(enum.StrEnum):
    """Why a completion ended.

    ERROR scores 0 and gives no vote, whatever its text says. LENGTH scores what its text scores. Both are counted,
    and reports say how far they could have moved a result.
    """

    STOP = "stop"
    LENGTH = "length"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How completions are drawn. `temperature` 0 is greedy; `top_k` 0 and `top_p` 1 leave all tokens in."""

    n: int
    temperature: float
    max_tokens: int
    top_p: float = 1.0
    top_k: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt whose samples 0..n-1 are wanted."""

    question_id: str
    prompt: str | list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled answer. `tokens` counts generated tokens, the end token included."""

    question_id: str
    sample: int
    text: str
    tokens: int
    stop_reason: StopReason
    error: str | None = None

    @property
    def failed(self) -> bool:
        """Whether it ended by an error: then it has no answer, and its text is nobody's training target."""
        return self.stop_reason is StopReason.ERROR


@dataclass(frozen=True, slots=True)
class Score:
    """A verifier's verdict: `score` in [0, 1], `correct` the decision, `answer` what was extracted."""

    score: float
    correct: bool
    answer: str | None
    feedback: str | None = None


class Verifier(Plugin):
    """Judges a completion against a question's gold answer. Must never raise on any text."""

    kind = "verifier"
    # True states that `same` is equality of normalised answers, so that a vote can count them by hash. A class that
    # leaves `same` as it is need not say so; one that replaces it is asked pair by pair unless it says so itself.
    same_is_equality: ClassVar[bool] = True

    def extract(self, completion: str) -> str | None:
        """The normalised final answer in a completion, or None where there is none."""
        raise NotImplementedError

    def normalise(self, answer: str) -> str | None:
        """A bare answer (a gold answer, a label) in the same normal form, None where it is no readable answer."""
        return self.extract(answer)

    def recorded(self, answer: str) -> str | None:
        """An answer that another tool recorded for a model, normalised: a bare one, else the answer in what it says."""
        normal = self.normalise(answer)
        return self.extract(answer) if normal is None else normal

    def same(self, a: str, b: str) -> bool:
        """Whether two normalised answers are equal. Every answer is the same as itself."""
        return a == b

    def group(self, answers: Sequence[str | None]) -> list[int | None]:
        """Classes of a vote: for each answer the index of the first answer of its class, None for None.

        No class holds two answers that are unequal by `same` in either direction. Where `same` is not transitive (a
        tolerance is not), classes form greedily: the answers given most often come first, then those earlier in the
        order of their texts, and each joins the first class all of whose answers it is the same as. So the classes
        do not depend on the order of the samples.
        """
        first_index: dict[str, int] = {}
        for index, answer in enumerate(answers):
            if answer is not None:
                first_index.setdefault(answer, index)
        class_of = first_index if self._same_is_equality() else self._greedy_classes(answers, first_index)
        return [None if answer is None else class_of[answer] for answer in answers]

    @classmethod
    def _same_is_equality(cls) -> bool:
        # A statement holds for the `same` it was made about, not for one that a subclass put in its place.
        def owner(name: str) -> int:
            return next(place for place, base in enumerate(cls.__mro__) if name in vars(base))

        return cls.same_is_equality and owner("same_is_equality") <= owner("same")

    def _greedy_classes(self, answers: Sequence[str | None], first_index: Mapping[str, int]) -> dict[str, int]:
        counts = Counter(answer for answer in answers if answer is not None)
        classes: list[list[str]] = []
        for answer in sorted(counts, key=lambda text: (-counts[text], text)):
            fits = (one for one in classes if all(self.same(answer, a) and self.same(a, answer) for a in one))
            if (found := next(fits, None)) is None:
                classes.append([answer])
            else:
                found.append(answer)
        return {answer: min(first_index[other] for other in one) for one in classes for answer in one}

    def score(self, completion: str, question: Question) -> Score:
        """Judge one completion; a question without a gold answer scores 0."""
        answer = self.extract(completion)
        gold = None if question.answer is None else self.normalise(question.answer)
        correct = answer is not None and gold is not None and self.same(answer, gold)
        return Score(score=float(correct), correct=correct, answer=answer)


# --------------------------------------------------------------------------- models and engines


class LoraConfig(PluginConfig):
    """Low-rank adapters instead of full fine-tuning (arXiv 2106.09685)."""

    rank: int = Field(ge=1)
    alpha: float = Field(default=32, gt=0)
    targets: str | list[str] = Field(default="all-linear", description='"all-linear" or module names.')
    dropout: float = Field(default=0.0, ge=0, lt=1)


@dataclass(frozen=True)
class ModelRef:
    """Where weights are: a hub id, a local folder, or a train stage's artifact folder.

    `adapter` is a LoRA adapter folder to apply on top of `path`.
    """

    path: str
    revision: str | None = None
    dtype: str = "auto"
    adapter: str | None = None


class Engine(Plugin):
    """Turns prompts into completions. Sample s of question q is drawn from `stream(seed, q, s)` alone."""

    kind = "engine"
    needs_model: ClassVar[bool] = True

    def generate(
        self,
        model: ModelRef | None,
        requests: Sequence[Request],
        sampling: Sampling,
        seed: int,
        done: AbstractSet[tuple[str, int]] = frozenset(),
    ) -> Iterator[list[Completion]]:
        """Yield batches of finished completions, skipping the (question id, sample) pairs in `done`.

        Batches are cut from the full request list before skipping, so a resumed call meets the same
        batches as an uninterrupted one. One yielded list is one shard on disk.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Free the model."""


# --------------------------------------------------------------------------- labelers


@dataclass(frozen=True, slots=True)
class PseudoLabel:
    """A label somebody guessed. `label` None: no answer could be voted. `kept`: goes into training.

    `tally` maps normalised answers to votes in order of first sight; `confidence` = votes / k.
    """

    question_id: str
    label: str | None
    target: str | None
    confidence: float
    votes: int
    k: int
    kept: bool
    tally: Mapping[str, int] = field(default_factory=dict)


class Labeler(Plugin):
    """Gives unlabeled questions labels, from samples of a model or otherwise.

    One that samples is given questions without their hidden truth: id and text alone. One that does not may look at it.
    """

    kind = "labeler"
    needs_model: ClassVar[bool] = True
    # Config fields that shape the samples; the others only shape the vote, so that two labelers which
    # differ in threshold alone share their samples.
    sampling_fields: ClassVar[tuple[str, ...]] = ("k", "temperature", "top_p", "top_k", "max_tokens")

    def sampling(self) -> Sampling | None:
        """How to sample, None where no samples are needed."""
        raise NotImplementedError

    def label(
        self,
        questions: Sequence[Question],
        samples: Mapping[str, Sequence[Completion]],
        verifier: Verifier,
        seed: int,
    ) -> list[PseudoLabel]:
        """One PseudoLabel per question, in order. `samples[id]` is in order of sample number.

        A failed completion (`completion.failed`) comes with an empty text: it counts among the K and has no answer.
        """
        raise NotImplementedError


# --------------------------------------------------------------------------- trainers and rewards


@dataclass(frozen=True, slots=True)
class Example:
    """One training question: `answer` is the (pseudo-)label, `target` the text to imitate.

    `source` is "labeled", "pseudo" or "unlabeled".
    """

    question: Question
    prompt: str | list[dict[str, str]]
    answer: str | None
    target: str | None
    source: str


@dataclass(frozen=True)
class TrainSeeds:
    """Named streams of a training stage, each recorded in the manifest."""

    init: int
    order: int
    rollout: int


@dataclass(frozen=True)
class Budget:
    """Compute matching: at most one is set; None leaves the trainer's own epochs or steps in force."""

    steps: int | None = None
    tokens: int | None = None


@dataclass
class TrainJob:
    """Everything a trainer gets. It leaves the model in `output_dir` and resumes from `checkpoint_dir`.

    `report(step, total_steps, metrics)` stores a point of the curves; `warn(text, field, step=None)` tells the
    person what is wrong and which spec field to change; `should_stop()` turns true on SIGTERM: save a
    checkpoint at the next boundary and raise Interrupted.
    """

    model: ModelRef
    lora: LoraConfig | None
    examples: list[Example]
    prompt: Prompt
    verifier: Verifier
    seeds: TrainSeeds
    budget: Budget
    output_dir: Path
    checkpoint_dir: Path
    report: Callable[[int, int | None, Mapping[str, float]], None]
    warn: Callable[..., None]
    should_stop: Callable[[], bool]
    trackers: Sequence[str] = ()
    run_name: str = ""
    max_steps_cap: int | None = None  # --smoke only: cuts how many steps, never what a step is


@dataclass(frozen=True)
class TrainResult:
    """What a trainer says at its end; goes into the manifest."""

    steps: int
    examples_seen: int
    tokens_seen: int
    adapter_only: bool = False
    notes: Mapping[str, Any] = field(default_factory=dict)


class Trainer(Plugin):
    """Trains a model on examples. Runs in a worker process, possibly one of several under accelerate."""

    kind = "trainer"
    needs_targets: ClassVar[bool] = False  # True: examples without `target` are an error (SFT)
    package: ClassVar[str] = "trl"

    def planned_steps(self, examples: int) -> int | None:
        """Optimizer steps for this many examples, None where only the run can tell."""
        raise NotImplementedError

    def train(self, job: TrainJob) -> TrainResult:
        """Run or resume the job. Raises Interrupted after saving, StageFailed with a reason."""
        raise NotImplementedError


class Reward(Plugin):
    """A term of an RL reward. Every reward's config may carry `weight` (default 1)."""

    kind = "reward"

    class Config(PluginConfig):
        weight: float = 1.0

    def rewards(
        self,
        completions: Sequence[str],
        questions: Sequence[Question],
        truncated: Sequence[bool],
        verifier: Verifier,
    ) -> list[float]:
        """Unweighted reward per completion. `questions[i].answer` is the (pseudo-)label."""
        raise NotImplementedError


# --------------------------------------------------------------------------- protocols


@dataclass(frozen=True, slots=True)
class Scored:
    """A completion with its verdict. One that failed has score 0 and no answer, whatever it is made with."""

    completion: Completion
    score: Score

    def __post_init__(self) -> None:
        if self.completion.failed:
            object.__setattr__(self, "score", Score(score=0.0, correct=False, answer=None))

    @classmethod
    def judge(cls, completion: Completion, question: Question, verifier: Verifier) -> Scored:
        """Have a verifier score a completion; the text of one that failed is not looked at."""
        nothing = Score(score=0.0, correct=False, answer=None)
        return cls(completion, nothing if completion.failed else verifier.score(completion.text, question))


class Protocol(Plugin):
    """How a model is measured: how many samples of each question, and one value per question from them."""

    kind = "protocol"

    def metric(self) -> str:
        """The metric's name, e.g. "accuracy", "pass@8"."""
        raise NotImplementedError

    def sampling(self) -> Sampling:
        """How to sample the test questions."""
        raise NotImplementedError

    def value(self, scored: Sequence[Scored], verifier: Verifier) -> float:
        """The question's value in [0, 1], from all its samples in order of sample number.

        A failed completion comes with score 0, no answer and an empty text.
        """
        raise NotImplementedError


# The base class of each kind.
BASES: dict[str, type[Plugin]] = {
    "dataset": Dataset,
    "verifier": Verifier,
    "engine": Engine,
    "labeler": Labeler,
    "trainer": Trainer,
    "protocol": Protocol,
    "reward": Reward,
}
assert set(BASES) == set(KINDS)
