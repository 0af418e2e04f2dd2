"""The data that passes between plugins and the runner: questions, completions, verdicts, labels, examples.

All of it is frozen. Nothing here imports a heavy package or knows of a plugin's class.
"""

from __future__ import annotations

import enum
import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from nsd.plugins.side_files import SideFile

# --------------------------------------------------------------------------- questions


def question_id(question: str) -> str:
    """Content hash of a question: 16 hex digits over NFC text with runs of white space folded to one blank."""
    text = " ".join(unicodedata.normalize("NFC", question).split())
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Question:
    """One problem. `answer` is what a verifier compares with; `solution` is the gold worked completion.

    Both are None where nobody knows them (NuminaMath used as unlabeled data). `context` is privileged text that only a
    teacher may see, and often gives the answer away; `meta` holds what a verifier may need (level, tests, ...):
    what JSON has a form for, and what is large as a SideFile. `place` says in messages where the row stands
    (`train.jsonl:12`); it is no part of the question and enters no digest.
    """

    id: str
    text: str
    answer: str | None = None
    solution: str | None = None
    context: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    place: str | None = field(default=None, compare=False, repr=False)

    @property
    def side_files(self) -> dict[str, SideFile]:
        """What of `meta` lies in side files."""
        return {key: value for key, value in self.meta.items() if isinstance(value, SideFile)}


@dataclass(frozen=True)
class Shown:
    """What of a question tells nothing of its answer: the context or not, and keys of `meta`.

    The default shows nothing beyond id and text.
    """

    context: bool = False
    meta: frozenset[str] = frozenset()

    def to_json(self) -> dict[str, Any]:
        """The fields, JSON-able; `from_json` reads them."""
        return {"context": self.context, "meta": sorted(self.meta)}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Shown:
        """What `to_json` wrote; {} shows nothing."""
        return cls(bool(found.get("context", False)), frozenset(found.get("meta", ())))


def without_truth(question: Question, shown: Shown = Shown()) -> Question:
    """The question as somebody who must not know its answer may see it: id, text, and what its dataset shows."""
    return Question(
        id=question.id,
        text=question.text,
        context=question.context if shown.context else None,
        meta={key: value for key, value in question.meta.items() if key in shown.meta},
    )


# What a chat template is given by whoever calls it, so that no spec can.
_TEMPLATE_ARGUMENTS = {
    *("add_generation_prompt", "chat_template", "continue_final_message", "conversation", "documents", "max_length"),
    *("messages", "padding", "return_assistant_tokens_mask", "return_dict", "return_tensors", "tokenize"),
    *("tokenizer_kwargs", "tools", "truncation"),
}


class Prompt(BaseModel):
    """How a question becomes model input. `template` has `{question}`; other braces stay as they are.

    `chat_template_kwargs` reach the model's chat template in training, sampling and evaluation alike; a name that the
    template does not know changes nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
    template: str = Field(default="{question}", description="Text with {question} where the question goes.")
    chat: bool = Field(default=False, description="Apply the tokenizer's chat template to a user message.")
    system: str | None = Field(default=None, description="System message; needs chat: true.")
    separator: str = Field(
        default=" ", description="What stands between a plain prompt and the completion in training text."
    )
    chat_template_kwargs: dict[str, Any] | None = Field(
        default=None, description="Values for the chat template, such as {enable_thinking: false}; needs chat: true."
    )

    @field_validator("chat_template_kwargs")
    @classmethod
    def _nobody_elses(cls, given: dict[str, Any] | None) -> dict[str, Any] | None:
        if taken := sorted(_TEMPLATE_ARGUMENTS.intersection(given or {})):
            raise ValueError(f"{taken[0]!r} is given to the template by nsd itself")
        return given or None  # an empty mapping says nothing

    def render(self, question: Question) -> str | list[dict[str, str]]:
        """Return plain text, or chat messages (role, content) where `chat` is true."""
        text = self.template.replace("{question}", question.text)
        if not self.chat:
            return text
        system = [{"role": "system", "content": self.system}] if self.system is not None else []
        return [*system, {"role": "user", "content": text}]


Prompted = str | list[dict[str, str]]  # a question as Prompt.render gives it


@dataclass(frozen=True)
class Pools:
    """What a dataset offers before splitting. `test` None means: cut the test split from `train`.

    `unlabeled` None means: take the unlabeled split from the rest of `train`. `notes` are sentences about
    the rows that a person should read (rows without an answer, rows a filter left out). A pool may be a list, or any
    other sequence that gives the same questions each time: plugins/large.py has one that holds none of them.
    """

    train: Sequence[Question]
    test: Sequence[Question] | None
    unlabeled: Sequence[Question] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Splits:
    """Disjoint by question id. `unlabeled` keeps its hidden truth where the dataset has it."""

    labeled: Sequence[Question]
    unlabeled: Sequence[Question]
    test: Sequence[Question]


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
    """How completions are drawn. `temperature` 0 is greedy; `top_k` 0 and `top_p` 1 leave all tokens in.

    A completion ends before the first of the `stop` strings that its text holds (StopReason.STOP), and the stop string
    is no part of it.
    """

    n: int
    temperature: float
    max_tokens: int
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop", tuple(self.stop))  # JSON has lists

    @property
    def greedy(self) -> bool:
        """Whether all samples of a question are the same."""
        return self.temperature == 0 or self.top_k == 1

    def to_json(self) -> dict[str, Any]:
        """The fields as `Sampling(**fields)` takes them."""
        return {**asdict(self), "stop": list(self.stop)}


def cut_at_stop(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """The text before the first stop string in it, and whether there is one."""
    places = [place for one in stop if (place := text.find(one)) >= 0]
    return (text[: min(places)], True) if places else (text, False)


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt whose samples `first`..n-1 are wanted.

    The samples before are also among those that `Engine.generate` is told are done: an engine may look at either.
    `chat_template_kwargs` are the prompt's, for the template of a chat.
    """

    question_id: str
    prompt: str | list[dict[str, str]]
    first: int = 0
    chat_template_kwargs: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Confidence:
    """How sure a model was of the tokens it drew, before temperature, top-k and top-p; natural logarithms.

    `logprob` is the mean log-probability of the drawn tokens, `logprob_lowest` its lowest mean over a window. The
    others are DeepConf's (Fu et al. 2025, "Deep Think with Confidence", arXiv 2508.15260), higher where the model is
    surer: a token's confidence is minus the mean log-probability of the 20 most likely tokens at its place; `mean` is
    over all tokens, `tail` over the last window, `bottom` over the lowest tenth of the windows, `lowest` of the lowest
    window. How long a window is: plugins/confidence.py.
    """

    logprob: float
    logprob_lowest: float
    mean: float
    tail: float
    bottom: float
    lowest: float


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled answer. `tokens` counts generated tokens, the end token included.

    `confidence` is None where the engine has no log-probabilities. It is no part of what is compared: another batch
    moves its last digits, not the text.
    """

    question_id: str
    sample: int
    text: str
    tokens: int
    stop_reason: StopReason
    error: str | None = None
    confidence: Confidence | None = field(default=None, compare=False)

    @property
    def failed(self) -> bool:
        """Whether it ended by an error: then it has no answer, and its text is nobody's training target."""
        return self.stop_reason is StopReason.ERROR


@dataclass(frozen=True, slots=True)
class Answered:
    """What wrote an engine's texts, where that is a process of its own.

    `weights` is a print of the parameters in its memory (sums of their products with two fixed vectors, and of the
    magnitudes), None where it cannot say; `checked` tells whether it was compared with that of the files.
    """

    versions: Mapping[str, str]
    weights: Sequence[float] | None
    checked: bool


@dataclass(frozen=True, slots=True)
class Score:
    """A verifier's verdict: `score` in [0, 1], `correct` the decision, `answer` what was extracted.

    `numbers` are further ones that it measured, under the same names for every completion, such as the share of a
    program's tests that passed; no metric of an evaluation and no reward looks at them.
    """

    score: float
    correct: bool
    answer: str | None
    feedback: str | None = None
    numbers: Mapping[str, float] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Sandboxed:
    """In which kind of sandbox a verifier runs programs, and what that guarantees on this machine."""

    kind: str
    guarantees: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The fields, JSON-able."""
        return {"kind": self.kind, "guarantees": list(self.guarantees)}


@dataclass(frozen=True, slots=True)
class TokenStatistics:
    """Of each token of a rollout, by the model as it drew it; before temperature, top-k and top-p; natural logarithms.

    `entropy` of the distribution, `confidence` as DeepConf has it (see Confidence), `certainty` the logarithm of the
    sum of exp(logits) minus the mean logit (Intuitor's self-certainty, arXiv 2505.19590, up to the logarithm of the
    vocabulary's size).
    """

    entropy: tuple[float, ...]
    confidence: tuple[float, ...]
    certainty: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Rollout:
    """A completion drawn while training, with its verdict: what rewards, trainers and reports share.

    `question.answer` is the (pseudo-)label that `score` was judged by. `sample` counts a question's rollouts of one
    step on this process from 0. `tokens` are the generated token ids, the end token included. `stop_reason` is STOP or
    LENGTH. `logprobs` (before temperature, top-k and top-p) and `statistics` hold a value for each token; they are None
    unless a reward of the training says that it needs them.
    """

    question: Question
    sample: int
    text: str
    tokens: tuple[int, ...]
    stop_reason: StopReason
    score: Score
    logprobs: tuple[float, ...] | None = None
    statistics: TokenStatistics | None = None

    @property
    def truncated(self) -> bool:
        """Whether it was cut at the token limit."""
        return self.stop_reason is StopReason.LENGTH


# --------------------------------------------------------------------------- labels and training


@dataclass(frozen=True)
class ModelRef:
    """Where weights are: a hub id, a local folder, or a train stage's artifact folder.

    `adapter` is a LoRA adapter folder to apply on top of `path`. `device` None: the best that torch finds.
    `dtype` is the type of the weights, `train_dtype` that of the ones that a training updates (None: `dtype`).
    """

    path: str
    revision: str | None = None
    dtype: str = "auto"
    adapter: str | None = None
    device: Device | None = None
    train_dtype: str | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """Where a stage computes. `half` is the half-precision type that it has units for, "float32" where none."""

    kind: Literal["cpu", "cuda"]
    half: Literal["bfloat16", "float16", "float32"] = "float32"

    def type_in_force(self, dtype: str, trainable: bool) -> str:
        """The type of weights that a spec or a checkpoint has in `dtype`.

        On a GPU without units for bfloat16 they are `half` to draw, and float32 to train: gradients in float16 need
        weights in float32 to be added to.
        """
        if self.kind == "cpu" or dtype not in ("bfloat16", "float16") or self.half == "bfloat16":
            return dtype
        return "float32" if trainable else self.half


@dataclass(frozen=True, slots=True)
class PseudoLabel:
    """A label somebody guessed. `label` None: no answer could be voted. `kept`: goes into training.

    `tally` maps normalised answers to votes in order of first sight; `confidence` = votes / k.

    `drawn` is the number of samples that a vote which stopped early has seen; None: all of the k. What it says of votes
    is then of these, and the share of all k that agree lies between `low` and `high`.
    """

    question_id: str
    label: str | None
    target: str | None
    confidence: float
    votes: int
    k: int
    kept: bool
    tally: Mapping[str, int] = field(default_factory=dict)
    drawn: int | None = None

    @property
    def low(self) -> float:
        """Least share of the k samples that can have agreed."""
        return self.confidence if self.drawn is None else self.votes / self.k

    @property
    def high(self) -> float:
        """Largest share of the k samples that can have agreed."""
        return self.confidence if self.drawn is None else (self.votes + self.k - self.drawn) / self.k


@dataclass(frozen=True, slots=True)
class Example:
    """One training question: `answer` is the (pseudo-)label, `target` the text to imitate.

    `source` is "labeled", "pseudo", "unlabeled", "questions" or "test_questions"; the last two have neither answer nor
    target.
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
    """Compute matching: at most one is set; None leaves the trainer's own epochs or steps in force.

    `tokens` are those of training texts. `generated_tokens` are those of the rollouts that a training draws, without
    what validation draws; a trainer that draws none takes them as tokens of training texts. `seconds` are those spent
    in the training's steps, before a resume too; such a run cannot be repeated to the bit.
    """

    steps: int | None = None
    tokens: int | None = None
    generated_tokens: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class KeptRollout:
    """A rollout as it is kept for the report, and for what the executor computes from it and the hidden truth.

    `step` counts optimizer steps done when it was drawn. `tokens` counts its tokens. `reward` is the weighted sum of
    the rewards. `masked`: no loss of its tokens counts, of a self-distillation the distillation's. `teacher_input` is
    what a self-distillation's teacher read before the response, as text.
    """

    step: int
    question_id: str
    sample: int
    text: str
    tokens: int
    stop_reason: StopReason
    answer: str | None
    score: float
    reward: float
    masked: bool = False
    teacher_input: str | None = None


@dataclass(frozen=True)
class TrainResult:
    """What a trainer says at its end; goes into the manifest."""

    steps: int
    examples_seen: int
    tokens_seen: int
    adapter_only: bool = False
    notes: Mapping[str, Any] = field(default_factory=dict)
