"""The stored samples behind label stages, and one vote over them: what `nsd revote` counts (runner/work/revote.py).

voting = Voting(workspace, group)
labels = voting.vote(Setting(k=4, threshold=0.5), voting.samples)
voting.kept(labels)                  # how many, of how many the truth is known, how many of those are right
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nsd.plugins.api import Completion, Labeler, PseudoLabel, Question, Verifier, without_truth
from nsd.plugins.errors import InputError, MissingExtra
from nsd.plugins.registry import code, find, is_path
from nsd.plugins.verifiers.voting import weight, weighted
from nsd.runner.store import tables
from nsd.runner.store.shapes import Manifest
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.failures import failures, without_failed_text
from nsd.runner.work.labelled import name_of
from nsd.runner.work.remembering import Remembering
from nsd.runner.work.stages import label_is_right

Samples = Mapping[str, Sequence[Completion]]


@dataclass(frozen=True, order=True)
class Setting:
    """How to vote. `k` or `threshold` None: the labeler has no such field."""

    k: int | None
    threshold: float | None
    ties: str = "first"
    weights: str = ""  # a field of Confidence that a sample's vote counts by
    top: float = 1.0  # share of the samples, of most weight, that vote
    stop_vote: str = ""  # "": over all K

    @property
    def plain(self) -> Setting:
        """The plain vote of the same K and threshold, over all K samples."""
        return Setting(self.k, self.threshold, self.ties)


@dataclass
class LabelSet:
    """A finished label stage and who used it."""

    manifest: Manifest
    conditions: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return name_of(self.conditions, self.runs)


class Voting:
    """The samples, questions, verifier and labeler class of a group of label sets."""

    def __init__(self, workspace: Workspace, group: Sequence[LabelSet]) -> None:
        self.group, self.key = group, group[0].manifest.made_of
        # By which rule the group's own votes stop; it is the same for all of them.
        self.own_rule: str = self.key["labeler"]["config"].get("stop_vote") or ""
        self.name = "; ".join(one.name for one in group)
        self.notes: list[str] = []
        self.workspace = workspace
        self.labeler_class = self._class("labeler")
        verifier = self._make_verifier()
        if self.labeler_class.needs_votes and not verifier.votes:
            uses = [self.key[kind]["use"] for kind in ("labeler", "verifier")]
            raise InputError(
                f"the labels of {self.name} cannot be voted on again: labeler {uses[0]!r} votes over answers, and "
                f"those of verifier {uses[1]!r} cannot be voted on; run the spec with another labeler, or with a "
                "verifier whose answers are equal or not, such as numeric"
            )
        self.verifier = Remembering(verifier)
        self.questions = tables.read_questions(workspace.data_file(self.key["questions"]))
        self.asked = [without_truth(question) for question in self.questions]
        self.samples, self.sampling = self._read_samples(group[0].manifest.inputs["samples"])
        self.stored = max(map(len, self.samples.values()), default=0)
        # Of votes that stopped early: as many as these asked for of each question, and no more are there.
        self.stopped = any(len(drawn) < self.sampling["n"] for drawn in self.samples.values())
        if self.stopped:
            self.stored = self.sampling["n"]
        self._right: dict[tuple[str, str], bool | None] = {}

    def _class(self, kind: str) -> Any:
        wanted = self.key[kind]
        its_code = wanted.get("code", {})
        if is_path(wanted["use"]) or (its_code and "distribution" not in its_code):
            raise InputError(
                f"the labels of {self.name} were made with {kind} {wanted['use']!r}, a plugin in a file, which nsd "
                "revote does not run"
            )
        try:
            found = find(kind, wanted["use"])
        except MissingExtra:
            raise
        except InputError as error:
            raise InputError(f"the labels of {self.name} were made with {kind} {wanted['use']!r}: {error}") from error
        now = code(kind, wanted["use"])
        if found.version != wanted["version"] or (now.to_json() if now else {}) != its_code:
            self.notes.append(
                f"{kind} {wanted['use']!r} has changed since these labels were made: today's version votes"
            )
        return found

    def _make_verifier(self) -> Verifier:
        cls = self._class("verifier")
        made = cls(cls.Config.model_validate(self.key["verifier"]["config"]))
        assert isinstance(made, Verifier)
        return made

    def _read_samples(self, digest: str) -> tuple[dict[str, list[Completion]], dict[str, Any]]:
        path = self.workspace.folder("sample", digest) / "samples.parquet"
        if not path.is_file():
            raise InputError(
                f"the samples behind the labels of {self.name} are gone ({path} is not there): running the spec "
                "again draws them anew"
            )
        samples: dict[str, list[Completion]] = {}
        completions = tables.read_completions(path)
        if (failed := failures(completions)) is not None:
            if failed.most:
                raise InputError(
                    f"the samples behind the labels of {self.name} cannot be voted on: {failed.sentence()}"
                )
            self.notes.append(f"{failed.sentence()}; they have no vote and stay in the denominator")
        for completion in completions:
            samples.setdefault(completion.question_id, []).append(without_failed_text(completion))
        return samples, self.workspace.manifest("sample", digest).made_of["sampling"]

    # ------------------------------------------------------------------ voting

    def labeler(self, setting: Setting, label_set: LabelSet | None = None) -> Labeler:
        """The stage's labeler with K and threshold changed. Raises InputError for a value that it refuses."""
        from pydantic import ValidationError

        cls = self.labeler_class
        # A label stage's key leaves out what shapes only the samples; the sample stage has it.
        drawn = {name: value for name, value in self.sampling.items() if name in cls.Config.model_fields}
        config = {**drawn, **(label_set or self.group[0]).manifest.made_of["labeler"]["config"]}
        config |= {name: value for name in ("k", "threshold") if (value := getattr(setting, name)) is not None}
        if "stop_vote" in cls.Config.model_fields:
            config |= {"stop_vote": setting.stop_vote or None}
        try:
            made = cls(cls.Config.model_validate(config))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            given = first["input"]
            raise InputError(f"labeler {cls.name!r} refuses {where} = {given!r}: {_lower(first['msg'])}") from error
        assert isinstance(made, Labeler)
        return made

    def vote(self, setting: Setting, samples: Samples) -> list[PseudoLabel]:
        """The labels of all questions, in order; only the first K of their samples are seen."""
        seen = samples if setting.k is None else {key: drawn[: setting.k] for key, drawn in samples.items()}
        if setting.weights:
            labels = [self._weighted(setting, question, seen[question.id]) for question in self.questions]
            return labels
        labels = self.labeler(setting).label(self.asked, seen, self.verifier, self.key["seed"])
        if setting.ties == "drop":
            labels = [_without_tie(label) for label in labels]
        return labels

    def _weighted(self, setting: Setting, question: Question, drawn: Sequence[Completion]) -> PseudoLabel:
        """A label whose confidence is the winner's share of the weight. A sample that failed has no weight."""
        there = [one for one in drawn if not one.failed]
        sure = [one.confidence for one in there]
        known = [one for one in sure if one is not None]
        if len(known) < len(sure):
            raise InputError(
                f"--weights {setting.weights}: the samples behind the labels of {self.name} have no confidences; the "
                "engine hf stores them with what it draws"
            )
        answers = [self.verifier.extract(one.text) for one in there]
        weights = [weight(one, setting.weights) for one in known]
        found = weighted(answers, weights, self.verifier, setting.top)
        kept = found.winner is not None and found.share >= (setting.threshold or 0.0)
        k = setting.k or len(drawn)
        return PseudoLabel(question.id, found.winner, None, found.share, found.votes, k, kept)

    def short(self, setting: Setting) -> int:
        """How many questions have fewer stored samples than the setting asks for."""
        labeler = self.labeler(setting)
        if setting.weights or not labeler.in_rounds:
            return sum(len(drawn) < (setting.k or self.stored) for drawn in self.samples.values())
        wanted = {one.id: labeler.asked(one, self.samples[one.id], self.verifier) for one in self.asked}
        return sum(wanted[name] > len(self.samples[name]) for name in wanted)

    def original(self, label_set: LabelSet) -> Setting:
        """The setting of a stage's own labels."""
        config = label_set.manifest.made_of["labeler"]["config"]
        return Setting(config.get("k"), config.get("threshold"), stop_vote=self.own_rule)

    def right(self, label: PseudoLabel, question: Question) -> bool | None:
        """As `label_is_right`, remembered: the same label comes back at most settings."""
        if label.label is None:
            return label_is_right(label, question, self.verifier)
        key = (question.id, label.label)
        if key not in self._right:
            self._right[key] = label_is_right(label, question, self.verifier)
        return self._right[key]

    def kept(self, labels: Sequence[PseudoLabel]) -> tuple[int, int, int]:
        """How many labels are kept, of how many of those the truth is known, how many of those are right."""
        found = [self.right(label, q) for label, q in zip(labels, self.questions, strict=True) if label.kept]
        return len(found), sum(right is not None for right in found), sum(right is True for right in found)


def is_tied(label: PseudoLabel) -> bool:
    """Whether two or more answers have the most votes."""
    votes = list(label.tally.values())
    return len(votes) > 1 and votes.count(max(votes)) > 1


def _without_tie(label: PseudoLabel) -> PseudoLabel:
    return replace(label, kept=False) if is_tied(label) else label


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]
