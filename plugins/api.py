"""The base types of everything a spec can name with `use:`. The registry (registry.py) finds them.

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

The data that passes between plugins is in data.py, what configs are made of in config.py; all of it can be imported
from here.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

from nsd.plugins.config import (
    DatasetConfig,
    KnownAs,
    LoraConfig,
    NestedPlugin,
    OutputNeutral,
    PluginConfig,
    SpecPath,
    SplitConfig,
)
from nsd.plugins.data import (
    Answered,
    Budget,
    Completion,
    Confidence,
    Device,
    Example,
    KeptRollout,
    ModelRef,
    Pools,
    Prompt,
    Prompted,
    PseudoLabel,
    Question,
    Request,
    Rollout,
    Sampling,
    Sandboxed,
    Score,
    Shown,
    Splits,
    StopReason,
    TokenStatistics,
    TrainResult,
    TrainSeeds,
    question_id,
    without_truth,
)
from nsd.plugins.growing import GrowingSamples
from nsd.plugins.metering import Meter, Usage
from nsd.plugins.side_files import SideFile

__all__ = [
    "BASES",
    "KINDS",
    "Answered",
    "Budget",
    "Completion",
    "Confidence",
    "Dataset",
    "DatasetConfig",
    "Device",
    "Engine",
    "Example",
    "GrowingSamples",
    "KeptRollout",
    "KnownAs",
    "Labeler",
    "LoraConfig",
    "Meter",
    "ModelRef",
    "NestedPlugin",
    "OutputNeutral",
    "Plugin",
    "PluginConfig",
    "PluginType",
    "PoolSizes",
    "Pools",
    "Prompt",
    "Prompted",
    "Protocol",
    "PseudoLabel",
    "Question",
    "Request",
    "Reward",
    "Rollout",
    "Sampling",
    "Sandboxed",
    "Score",
    "Scored",
    "Search",
    "Shown",
    "SideFile",
    "SpecPath",
    "SplitConfig",
    "Splits",
    "StopReason",
    "TokenStatistics",
    "TrainJob",
    "TrainResult",
    "TrainSeeds",
    "Trainer",
    "Usage",
    "Validation",
    "Verifier",
    "question_id",
    "without_truth",
]

KINDS = ("dataset", "verifier", "engine", "labeler", "trainer", "protocol", "reward")


class Plugin:
    """Base of every plugin kind. `version` goes up whenever the same config gives other output."""

    kind: ClassVar[str]
    name: ClassVar[str]
    version: ClassVar[int] = 1
    extra: ClassVar[str | None] = None  # the extra of nsd whose packages it needs; checked before a run begins

    class Config(PluginConfig):
        pass

    def __init__(self, config: Any = None) -> None:
        self.config: Any = config if config is not None else self.Config()  # of the class's own Config

    def digest_extra(self) -> dict[str, Any]:
        """What else decides the output beyond name, version and config, JSON-able (a file's content hash)."""
        return {}

    def beside(self) -> str | None:
        """What its machine must have beyond nsd and its extras, in words; None for nothing.

        A launch can bring "vllm", in an environment of its own. For anything else it asks for `--environment`.
        """
        return None


PluginType = TypeVar("PluginType", bound=type[Plugin])


def _said_of(cls: type[Plugin], statement: str, method: str) -> bool:
    """Whether a class's statement was made about the method it has, not about one that a subclass replaced since."""

    def owner(name: str) -> int:
        return next(place for place, base in enumerate(cls.__mro__) if name in vars(base))

    return owner(statement) <= owner(method)


class PoolSizes(NamedTuple):
    """Distinct questions in a generated dataset's pools."""

    train: int
    test: int


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

    def shown(self) -> Shown:
        """What an example whose true answer must stay hidden (a pseudo-label, no answer at all) keeps of its question.

        The default keeps nothing but id and text. Name only what tells nothing of the answer.
        """
        return Shown()

    def source_files(self) -> list[Path]:
        """Local files the rows come from, [] for generated or hub data. Raises InputError where one is missing.

        `nsd validate` reads these to see whether a plan would refuse the data.
        """
        return []

    def sizes(self) -> PoolSizes | None:
        """How many questions it makes, without making them; None where it reads them, or cannot tell."""
        return None


# --------------------------------------------------------------------------- verdicts


class Verifier(Plugin):
    """Judges a completion against a question's gold answer. Must never raise on any text."""

    kind = "verifier"
    # True states that `same` is equality of normalised answers, so that a vote can count them by hash. A class that
    # leaves `same` as it is need not say so; one that replaces it is asked pair by pair unless it says so itself.
    same_is_equality: ClassVar[bool] = True
    # False states that a vote over its answers means nothing (code: no two programs are equal), so that what votes,
    # the consensus labeler and maj_at_k, refuses it.
    votes: ClassVar[bool] = True
    # True: its verdict compares with `question.answer`, so that it is 0 for a question without one.
    needs_answer: ClassVar[bool] = True
    # True states that a wrong completion's verdict says what is wrong with it (`Score.feedback`).
    gives_feedback: ClassVar[bool] = False
    # True: `score_many` keeps every processor busy by itself, so that one process asks it and not one for each.
    uses_every_core: ClassVar[bool] = False

    def sandboxed(self) -> Sandboxed | None:
        """How it runs programs that nobody vouches for, None where it runs none. Raises InputError where it cannot."""
        return None

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

    @property
    def by_equality(self) -> bool:
        """Whether `same` is equality of normalised answers."""
        return self._same_is_equality()

    @classmethod
    def _same_is_equality(cls) -> bool:
        return cls.same_is_equality and _said_of(cls, "same_is_equality", "same")

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

    def score_many(self, items: Sequence[tuple[str, Question]]) -> list[Score]:
        """Judge completions, each with its question: one verdict per item, in order.

        The default calls `score` for each. Replace it where many at once are quicker (tests of programs in parallel);
        the verdicts must be those of `score`.
        """
        return [self.score(completion, question) for completion, question in items]


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


# --------------------------------------------------------------------------- engines and labelers


class Engine(Plugin):
    """Turns prompts into completions. Sample s of question q is drawn from `stream(seed, q, s)` alone."""

    kind = "engine"
    needs_model: ClassVar[bool] = True
    # True: it asks a model that somebody else serves, as sampling and prompt say. It needs none of ours (`needs_model`
    # is false), and counts in `meter`, which the runner gives it, what it asks and what that costs.
    served: ClassVar[bool] = False
    meter: Meter | None = None
    # Whether the person wants the run to stop, for an engine that gathers what comes before it hands it out.
    stopping: Callable[[], bool] = staticmethod(lambda: False)
    # Completions below which a call costs about as much as with so many: votes that are asked between rounds fill a
    # smaller round up. 1: each costs by itself.
    least_rows: ClassVar[int] = 1
    # True: it has `generate_growing`, so that votes that stop early need no rounds.
    grows: ClassVar[bool] = False

    @property
    def uses_every_gpu(self) -> bool:
        """Whether it spreads over every GPU that it sees. If not, several processes draw shares, a GPU each."""
        return False

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
        batches as an uninterrupted one. One yielded list is one shard on disk; an empty one only lets whoever draws
        look whether to stop.
        """
        raise NotImplementedError

    def generate_growing(
        self,
        model: ModelRef | None,
        requests: Sequence[Request],
        sampling: Sampling,
        seed: int,
        samples: GrowingSamples,
    ) -> Iterator[list[Completion]]:
        """As `generate`, of samples that are asked for while others are drawn; called where `grows` is true.

        It begins with those that `samples.first` names of each request, tells `samples.further` of every completion as
        soon as it is written, before or after it is yielded, and draws what that asks for. What `first` says counts,
        not `Request.first`.
        """
        raise NotImplementedError

    def ready(self) -> None:
        """Raise InputError where this machine lacks what it asks with (a key). Called before a run begins."""

    def at_most(self, prompts: Sequence[Prompted], samples: int, max_tokens: int) -> Usage | None:
        """What so many samples of each prompt would cost at most, for the plan; None where nobody is asked."""
        return None

    def answered(self) -> Answered | None:
        """What wrote the texts of the last call, for the manifest; None where that is nsd's own process."""
        return None

    def close(self) -> None:
        """Free the model."""


class Labeler(Plugin):
    """Gives unlabeled questions labels, from samples of a model or otherwise.

    One that samples is given questions without their hidden truth: id and text alone. One that does not may look at it.
    """

    kind = "labeler"
    needs_model: ClassVar[bool] = True
    needs_votes: ClassVar[bool] = False  # True: it counts a verifier's answers, so a verifier without votes is an error
    needs_different_samples: ClassVar[bool] = False  # True: several greedy samples of a question are an error
    # True states that a question's label follows from the question and its samples alone, so that very many questions
    # are labelled a part at a time. It is said of `label`: a subclass that replaces it says so itself, or sees all.
    one_by_one: ClassVar[bool] = False
    # Config fields that shape the samples; the others only shape the vote, so that two labelers which
    # differ in threshold alone share their samples.
    sampling_fields: ClassVar[tuple[str, ...]] = ("k", "temperature", "top_p", "top_k", "max_tokens", "stop")

    def sampling(self) -> Sampling | None:
        """How to sample, None where no samples are needed."""
        raise NotImplementedError

    @property
    def in_parts(self) -> bool:
        """Whether it may be asked for the labels of a part of the questions."""
        return self.one_by_one and _said_of(type(self), "one_by_one", "label")

    @property
    def in_rounds(self) -> bool:
        """Whether it may do with fewer samples of a question than `sampling().n`, and is asked between rounds."""
        return False

    def more(self, question: Question, completions: Sequence[Completion], verifier: Verifier) -> int:
        """How many further samples of a question it wants to see before it is asked again; 0: these are enough.

        `completions` are the question's first ones, in order of sample number. The answer must follow from these
        alone, so that labels do not depend on who else drew what, and in which batches. A failed completion comes with
        an empty text. Asked only where `in_rounds`; the default wants all at once.
        """
        sampling = self.sampling()
        return 0 if sampling is None else max(0, sampling.n - len(completions))

    def asked(self, question: Question, completions: Sequence[Completion], verifier: Verifier) -> int:
        """How many samples of a question it has asked for, told of these round by round from the beginning.

        More than there are: it waits for them. Else its labels are of the first so many, whatever else there is.
        """
        wanted = 0
        while wanted <= len(completions) and (more := self.more(question, completions[:wanted], verifier)) > 0:
            wanted += more
        return wanted

    def expected_share(self, histogram: Mapping[int, int] | None = None, of: int = 0) -> float:
        """Share of the samples that it is expected to ask for, of questions with these winner's votes of `of`.

        Without a histogram (votes -> questions) one that the plugin states is taken.
        """
        return 1.0

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


@dataclass(frozen=True)
class Validation:
    """What a training is watched by: questions that no arm of the spec trains on, judged as an evaluation judges.

    The trainer measures before its first step and at every multiple of `every` steps, and at its end. A completion's
    stream is `stream(seed, question, sample)`, the same each time, so that two measurements differ by the model alone.
    `keep` says which weights the training leaves: those of the best measurement (the first of equals) or the last ones.
    """

    examples: Sequence[Example]
    every: int
    keep: Literal["best", "last"]
    protocol: Protocol
    verifier: Verifier
    seed: int


@dataclass
class TrainJob:
    """Everything a trainer gets. It leaves the model in `output_dir` and resumes from `checkpoint_dir`.

    `verifier` is the condition's `train_verifier` where it names one. Examples of the sources `questions` and
    `test_questions` have no answer, and a verdict on them is 0.
    `report(step, total_steps, metrics)` stores a point of the curves; `warn(text, field, step=None)` tells the
    person what is wrong and which spec field to change; `should_stop()` turns true on SIGTERM: save a
    checkpoint at the next boundary and raise Interrupted. `keep(rollouts)` keeps the rollouts of one sampled batch, all
    of one step; those of a step that is kept again, after a resume, replace the first. `judged(step, rollouts)` is told
    of every sampled batch of a process as soon as it is judged, before anything is learned from it; what it raises ends
    the training.
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
    device: Device | None = None  # None: the best that torch finds
    max_steps_cap: int | None = None  # --smoke only: cuts how many steps, never what a step is
    validation: Validation | None = None
    keep: Callable[[Sequence[KeptRollout]], None] = lambda rollouts: None
    judged: Callable[[int, Sequence[Rollout]], None] = lambda step, rollouts: None


class Trainer(Plugin):
    """Trains a model on examples. Runs in a worker process, possibly one of several under accelerate."""

    kind = "trainer"
    needs_targets: ClassVar[bool] = False  # True: examples without `target` are an error (SFT)
    # Modules that training computes with and that take long to import: the worker imports them before the stage begins,
    # and has the garbage collector, which every training asks for, leave out what they made.
    imports: ClassVar[tuple[str, ...]] = ()

    def rows_per_step(self) -> int | None:
        """Rows that one optimizer step sees over all processes, which must share them evenly; None: any number."""
        return None

    def shares(self, processes: int) -> bool:
        """Whether so many processes can share the rows of a step evenly."""
        rows = self.rows_per_step()
        return rows is None or rows % processes == 0

    def unfit(self, processes: int | None, lora: bool) -> str | None:
        """Why it cannot train in so many processes (None: any number), or an adapter; None where it can."""
        return None

    def ready(self, device: str) -> None:
        """Raise InputError where this machine lacks what it trains with on a device ("cpu", "cuda").

        Called before a run begins.
        """

    def planned_steps(self, examples: int) -> int | None:
        """Optimizer steps for this many examples, None where only the run can tell."""
        raise NotImplementedError

    def rollouts_of_a_question(self) -> int | None:
        """Rollouts that it draws of a question at a time, and tells `TrainJob.judged` of.

        None for one that draws none, or that learns from what may not be shown of a test question: such a trainer
        cannot look for a question's solution.
        """
        return None

    def train(self, job: TrainJob) -> TrainResult:
        """Run or resume the job. Raises Interrupted after saving, StageFailed with a reason."""
        raise NotImplementedError


class Reward(Plugin):
    """A term of an RL reward. Every reward's config may carry `weight` (default 1)."""

    kind = "reward"
    needs_logprobs: ClassVar[bool] = False  # True: rollouts come with `logprobs`, at the price of a forward pass
    needs_statistics: ClassVar[bool] = False  # True: with `statistics`, likewise
    # True: it stands on the verifier's verdict, which compares with an answer. Where every reward of a training does,
    # the sources `questions` and `test_questions` are an error of the spec.
    needs_answer: ClassVar[bool] = False
    needs_votes: ClassVar[bool] = False  # as of a labeler
    # True: it compares a question's rollouts, so that one process must have them all.
    needs_group: ClassVar[bool] = False
    verifier: Verifier  # the training's, given by the trainer before it asks for rewards

    class Config(PluginConfig):
        weight: float = 1.0

    def rewards(self, rollouts: Sequence[Rollout]) -> list[float]:
        """The unweighted reward of each rollout, in order: all rollouts of a step on this process, groups together.

        Where several processes share a step, a group may be cut between them, unless `needs_group` says otherwise.
        """
        raise NotImplementedError


def old_reward(cls: type[Plugin]) -> str | None:
    """What is wrong with a reward that is written as rewards once were, None where nothing is."""
    if not issubclass(cls, Reward):
        return None
    try:
        inspect.signature(cls.rewards).bind(None, [])
    except TypeError:
        written = ", ".join(inspect.signature(cls.rewards).parameters)
        return (
            f"{cls.__name__}.rewards({written}) is no longer how a reward is written: write rewards(self, rollouts), "
            "each rollout with question, text, tokens, stop_reason, truncated and the verifier's score"
        )
    return None


# --------------------------------------------------------------------------- protocols


@dataclass(frozen=True, slots=True)
class Search:
    """How a solution of one question at a time is looked for: `samples` are drawn at most, `batch` at a time.

    `by` sampling: independent samples. multi_turn: one at a time, each prompt with the feedback on those before, of
    which the oldest is left out where the prompt has more than `feedback_tokens`. training: rollouts of a trainer that
    learns from each batch. It ends with the batch that holds a right one.
    """

    by: Literal["sampling", "multi_turn", "training"]
    samples: int
    batch: int
    feedback_tokens: int = 0


class Protocol(Plugin):
    """How a model is measured: how many samples of each question, and one value per question from them."""

    kind = "protocol"
    needs_votes: ClassVar[bool] = False  # as of a labeler
    needs_different_samples: ClassVar[bool] = False  # likewise
    # True: it measures the weights that validation kept, on the questions of the validation.
    on_validation: ClassVar[bool] = False

    def metric(self) -> str:
        """The metric's name, e.g. "accuracy", "pass@8"."""
        raise NotImplementedError

    def sampling(self) -> Sampling:
        """How to sample the test questions."""
        raise NotImplementedError

    def generated_tokens(self) -> int | None:
        """How many tokens the samples of all questions may have together; None: as many samples as `sampling` says.

        Where it is a number, the samples are as many complete rounds over the questions as it holds, one at least and
        `sampling().n` at most.
        """
        return None

    def search(self) -> Search | None:
        """How a solution of each question is looked for, by itself; None: samples of all are drawn as `sampling` says.

        With `by` training the config's field `trainer` holds the block of the one that learns.
        """
        return None

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
