"""`nsd revote`: the vote of a label stage again, over its stored samples, with another K, threshold or tie rule.

    for votes in revote(workspace, ["quickstart"], ks=[2, 4], thresholds=[0.5]):
        for row in votes.rows: print(row.k, row.threshold, row.kept, row.right_kept)

The stage's own labeler and verifier classes vote, with their configs validated anew; K takes the first K samples, as
the stage would. Completions are read once and answers grouped once for each set of samples, so a table costs little
more than one vote. Nothing is generated and nothing is written.

Another rule may vote beside the plain vote of the same K and threshold, weighted by stored confidences (`weights`) or
stopped early (`stop_votes`), and is counted against it question by question.

Samples of votes that stopped early hold what those asked for. A setting that would ask for more is an error.

Limits: it sees only what was sampled, so another temperature needs a run. Random choices of K among N stored
samples (`resamples`) overlap, the more the nearer K is to N: their spread is too small there, and none is given at N.
Votes of a plugin in a file cannot be repeated: stored results name no place, and no file is run for a report.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from nsd.plugins.api import Completion, Confidence, Labeler, PseudoLabel, Question, Verifier, without_truth
from nsd.plugins.errors import InputError, MissingExtra
from nsd.plugins.registry import code, find, is_path
from nsd.plugins.seeds import stream
from nsd.plugins.verifiers.voting import weight, weighted
from nsd.runner.store import tables
from nsd.runner.store.index import Store
from nsd.runner.store.shapes import Manifest
from nsd.runner.store.workspace import Workspace, canonical_json
from nsd.runner.work.failures import failures, without_failed_text
from nsd.runner.work.labelled import labelled_runs, name_of
from nsd.runner.work.remembering import Remembering
from nsd.runner.work.stages import label_is_right

TIE_RULES = ("first", "drop")
WEIGHTS = tuple(Confidence.__dataclass_fields__)
Samples = Mapping[str, Sequence[Completion]]


@dataclass(frozen=True, order=True)
class Setting:
    """How to vote. `k` or `threshold` None: the labeler has no such field."""

    k: int | None
    threshold: float | None
    ties: str = "first"
    weights: str = ""  # a field of Confidence that a sample's vote counts by
    top: float = 1.0  # share of the samples, of most weight, that vote
    stop_vote: str = ""  # "": as the labeler has it

    @property
    def plain(self) -> Setting:
        """The plain vote of the same K and threshold."""
        return Setting(self.k, self.threshold, self.ties)


@dataclass(frozen=True)
class Against:
    """A rule's kept right labels against the plain vote's: questions of known truth where one of the two has one."""

    only_this: int
    only_plain: int


@dataclass(frozen=True)
class Spread:
    """Over random choices of K samples for each question: means and standard deviations (None for one choice)."""

    resamples: int
    kept_mean: float
    kept_sd: float | None
    accuracy_kept_mean: float | None
    accuracy_kept_sd: float | None


@dataclass(frozen=True)
class VoteRow:
    """The labels that one setting gives. Accuracy counts kept labels of known truth; None where there are none.

    `tied` counts votes that two or more answers won together (of weights: none). `seen` counts the samples that
    the votes stand on. `against` is None for the plain vote. `original_of` names the conditions whose stored labels
    have this setting; `spec` is the labeler's block of a spec, None where no spec can say it.
    """

    k: int | None
    threshold: float | None
    ties: str
    weights: str
    top: float
    stop_vote: str
    seen: int
    against: Against | None
    voted: int
    tied: int
    kept: int
    coverage: float
    known_kept: int
    right_kept: int
    accuracy_kept: float | None
    spread: Spread | None
    original_of: list[str]
    spec: dict[str, Any] | None


@dataclass(frozen=True)
class Revotes:
    """All settings over one set of stored samples: `stored` samples of each of `questions` questions."""

    labels_of: list[str]
    labeler: str
    verifier: str
    stored: int
    questions: int
    rows: list[VoteRow]
    notes: list[str]


@dataclass
class _LabelSet:
    """A finished label stage and who used it."""

    manifest: Manifest
    conditions: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return name_of(self.conditions, self.runs)


def revote(
    workspace: Workspace,
    names: Sequence[str],
    ks: Sequence[int] = (),
    thresholds: Sequence[float] = (),
    ties: str = "first",
    resamples: int = 0,
    weights: Sequence[str] = (),
    top: float = 1.0,
    stop_votes: Sequence[str] = (),
) -> list[Revotes]:
    """Every combination of K and threshold, the original among them, for each set of stored samples.

    Without `ks` the powers of two up to the stored number are taken, without `thresholds` the original ones.
    Raises InputError for a K above what is stored, for a value that the labeler refuses, for labels that were not
    voted from samples, and for a verifier whose answers cannot be voted on.
    """
    if ties not in TIE_RULES:
        raise InputError(f"--ties {ties!r}: one of {', '.join(TIE_RULES)}")
    if unknown := [one for one in weights if one not in WEIGHTS]:
        raise InputError(f"--weights {unknown[0]!r}: one of {', '.join(WEIGHTS)}")
    if not 0 < top <= 1:
        raise InputError(f"--top {top:g}: a share of the samples above 0, 1 at most")
    if top < 1 and not weights:
        raise InputError(f"--top {top:g} chooses samples by their weight: name one with --weights, such as mean")
    groups, without_samples = _groups(workspace, names)
    rules = [{"weights": one, "top": top} for one in weights] + [{"stop_vote": one} for one in stop_votes]
    found = [_Voting(workspace, group).table(ks, thresholds, ties, resamples, rules) for group in groups]
    found[0].notes.extend(_no_samples(one) + ", so they are not in the table" for one in without_samples)
    return found


def _no_samples(labels: _LabelSet) -> str:
    use = labels.manifest.made_of["labeler"]["use"]
    return f"the labels of {labels.name} come from labeler {use!r}, which draws no samples to vote on again"


def _groups(workspace: Workspace, names: Sequence[str]) -> tuple[list[list[_LabelSet]], list[_LabelSet]]:
    """Label sets that differ in K and threshold alone stand in one table; those without samples in none."""
    with Store(workspace).read() as connection:
        runs = labelled_runs(connection, names)
    sets: dict[str, _LabelSet] = {}
    for run in runs:
        if run.label_digest not in sets:
            sets[run.label_digest] = _LabelSet(workspace.manifest("label", run.label_digest))
        found = sets[run.label_digest]
        found.runs.append(run.run)
        if run.condition not in found.conditions:
            found.conditions.append(run.condition)
    voted = [one for one in sets.values() if "samples" in one.manifest.inputs]
    others = [one for one in sets.values() if one not in voted]
    if not voted:
        raise InputError(_no_samples(others[0]))
    groups: dict[str, list[_LabelSet]] = {}
    for one in voted:
        key = one.manifest.made_of
        rest = {name: value for name, value in key["labeler"]["config"].items() if name not in ("k", "threshold")}
        same = {**key, "labeler": {**key["labeler"], "config": rest}}
        groups.setdefault(canonical_json(same), []).append(one)
    return list(groups.values()), others


class _Voting:
    """The samples, questions, verifier and labeler class of a group of label sets."""

    def __init__(self, workspace: Workspace, group: Sequence[_LabelSet]) -> None:
        self.group, self.key = group, group[0].manifest.made_of
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

    def labeler(self, setting: Setting, label_set: _LabelSet | None = None) -> Labeler:
        """The stage's labeler with K and threshold changed. Raises InputError for a value that it refuses."""
        from pydantic import ValidationError

        cls = self.labeler_class
        # A label stage's key leaves out what shapes only the samples; the sample stage has it.
        drawn = {name: value for name, value in self.sampling.items() if name in cls.Config.model_fields}
        config = {**drawn, **(label_set or self.group[0]).manifest.made_of["labeler"]["config"]}
        config |= {name: value for name in ("k", "threshold") if (value := getattr(setting, name)) is not None}
        config |= {"stop_vote": setting.stop_vote} if setting.stop_vote else {}
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

    def _check_decided(self, settings: Mapping[Setting, list[str]], asked: bool) -> dict[Setting, list[str]]:
        """The settings that the samples of votes that stopped early suffice for. Raises InputError for one `asked`."""
        found: dict[Setting, list[str]] = {}
        for setting, names in settings.items():
            labeler = self.labeler(setting)
            if setting.weights or not labeler.in_rounds:
                short = sum(len(drawn) < (setting.k or self.stored) for drawn in self.samples.values())
            else:
                short = sum(
                    labeler.asked(one, self.samples[one.id], self.verifier) > len(self.samples[one.id])
                    for one in self.asked
                )
            if not short or names:
                found[setting] = names
            elif asked:
                raise InputError(
                    f"the votes of {self.name} stopped early, and {short} of {len(self.asked)} questions have too few "
                    f"samples for {_words(setting)}: an arm with it in the spec draws the rest alone, one without "
                    "stop_vote all of them, and nsd revote then votes over those"
                )
        if len(found) < len(settings):
            self.notes.append(
                f"the votes stopped early: {len(settings) - len(found)} of {len(settings)} settings would ask for more "
                "samples and are left out"
            )
        return found

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

    # ------------------------------------------------------------------ the table

    def settings(
        self, ks: Sequence[int], thresholds: Sequence[float], ties: str, rules: Sequence[Mapping[str, Any]] = ()
    ) -> dict[Setting, list[str]]:
        """Settings in order, each with the conditions whose own it is."""
        fields = self.labeler_class.Config.model_fields
        stops = [one for one in rules if "stop_vote" in one]
        for name, given in (("k", ks), ("threshold", thresholds), ("stop_vote", stops)):
            if given and name not in fields:
                raise InputError(
                    f"--{name.replace('_', '-')}: labeler {self.labeler_class.name!r} has no field {name!r}"
                )
        for k in ks:
            if k > self.stored:
                raise InputError(
                    f"--k {k}: {self.stored} samples of each question are stored for {self.name}; more need to be "
                    f"generated, with k: {k} in the spec's labeler and nsd run"
                )
        original: dict[Setting, list[str]] = {}
        for one in self.group:
            config = one.manifest.made_of["labeler"]["config"]
            original.setdefault(Setting(config.get("k"), config.get("threshold")), []).append(one.name)
        chosen_ks: list[int | None] = [*ks] or ([None] if "k" not in fields else _powers_of_two(self.stored))
        chosen_thresholds: list[float | None] = [*thresholds] or [setting.threshold for setting in original]
        asked = {Setting(k, t, ties) for k, t in itertools.product(chosen_ks, chosen_thresholds)}
        asked |= {replace(one, **rule) for one in asked | set(original) for rule in rules}
        for setting in asked:
            self.labeler(setting)  # a refused value is found before anything is counted
        every = sorted(asked | set(original), key=_order)
        found = {setting: original.get(setting, []) for setting in every}
        return self._check_decided(found, bool(ks or thresholds or rules)) if self.stopped else found

    def table(
        self,
        ks: Sequence[int],
        thresholds: Sequence[float],
        ties: str,
        resamples: int,
        rules: Sequence[Mapping[str, Any]] = (),
    ) -> Revotes:
        """Vote at every setting."""
        settings = self.settings(ks, thresholds, ties, rules)
        if self.stopped and resamples:
            raise InputError(
                f"--resample: the votes of {self.name} stopped early, so that not every choice of samples is stored; "
                "an arm without stop_vote draws the rest"
            )
        self._check_original()
        spreads = self._spreads(list(settings), resamples)
        rows = []
        voted = {setting: self.vote(setting, self.samples) for setting in settings}
        for setting, names in settings.items():
            labels = voted[setting]
            kept, known, right = self.kept(labels)
            rows.append(
                VoteRow(
                    **asdict(setting),
                    seen=self._seen(setting, labels),
                    against=None if setting == setting.plain else self._against(labels, voted.get(setting.plain)),
                    voted=sum(label.label is not None for label in labels),
                    tied=sum(map(is_tied, labels)),
                    kept=kept,
                    coverage=kept / len(labels) if labels else 0.0,
                    known_kept=known,
                    right_kept=right,
                    accuracy_kept=right / known if known else None,
                    spread=spreads.get(setting),
                    original_of=names,
                    spec=self._spec(setting),
                )
            )
        return Revotes(
            labels_of=[one.name for one in self.group],
            labeler=self.key["labeler"]["use"],
            verifier=self.key["verifier"]["use"],
            stored=self.stored,
            questions=len(self.questions),
            rows=rows,
            notes=self.notes,
        )

    def _seen(self, setting: Setting, labels: Sequence[PseudoLabel]) -> int:
        there = (min(len(self.samples.get(one.question_id, ())), setting.k or self.stored) for one in labels)
        return sum(most if one.drawn is None else one.drawn for one, most in zip(labels, there, strict=True))

    def _against(self, labels: Sequence[PseudoLabel], plain: Sequence[PseudoLabel] | None) -> Against | None:
        if plain is None:
            return None
        this, that = (
            [one.kept and self.right(one, question) for one, question in zip(given, self.questions, strict=True)]
            for given in (labels, plain)
        )
        pairs = [(bool(a), bool(b)) for a, b in zip(this, that, strict=True)]
        return Against(sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs))

    def _check_original(self) -> None:
        """Say so where today's code no longer gives the stored labels: then the table is not about them."""
        for one in self.group:
            config = one.manifest.made_of["labeler"]["config"]
            labels = self.vote(Setting(config.get("k"), config.get("threshold")), self.samples)
            stored = tables.read(self.workspace.folder("label", one.manifest.digest) / "labels.parquet")
            differing = sum(
                (row["label"], row["votes"], row["kept"]) != (label.label, label.votes, label.kept)
                for row, label in zip(stored, labels, strict=True)
            )
            if differing:
                self.notes.append(
                    f"the original vote of {one.name} comes out differently for {differing} of {len(stored)} "
                    "questions: the code has changed since, and this table is of today's"
                )

    def _spreads(self, settings: Sequence[Setting], resamples: int) -> dict[Setting, Spread]:
        import numpy as np

        whole = [setting for setting in settings if setting == setting.plain]
        partial = [setting for setting in whole if setting.k is not None and setting.k < self.stored]
        found: dict[Setting, list[tuple[int, int, int]]] = {setting: [] for setting in partial}
        for number in range(resamples if partial else 0):
            # One order for all K: the settings are then compared on the same choices.
            generator = np.random.default_rng(stream(self.key["seed"], "revote", number))
            shuffled = {
                key: [drawn[i] for i in generator.permutation(len(drawn)).tolist()]
                for key, drawn in self.samples.items()
            }
            for setting in partial:
                found[setting].append(self.kept(self.vote(setting, shuffled)))
        return {setting: _spread(counts) for setting, counts in found.items() if counts}

    def _spec(self, setting: Setting) -> dict[str, Any] | None:
        if setting.ties != "first" or setting.weights:
            return None
        config = self.labeler(setting).config
        fields = type(config).model_fields
        written = {name: value for name, value in config.model_dump(mode="json").items() if name in ("k", "threshold")}
        changed = {
            name: value
            for name, value in config.model_dump(mode="json").items()
            if name not in written and value != fields[name].get_default(call_default_factory=True)
        }
        return {"use": self.key["labeler"]["use"], **written, **changed}


def _order(setting: Setting) -> tuple[Any, ...]:
    rule = (setting.weights, setting.stop_vote)
    return setting.k or 0, setting.threshold or 0.0, setting.ties != "first", rule


def _words(setting: Setting) -> str:
    told = {"k": setting.k, "threshold": setting.threshold, "weights": setting.weights, "stop_vote": setting.stop_vote}
    return ", ".join(f"{name} {value}" for name, value in told.items() if value not in (None, ""))


def is_tied(label: PseudoLabel) -> bool:
    """Whether two or more answers have the most votes."""
    votes = list(label.tally.values())
    return len(votes) > 1 and votes.count(max(votes)) > 1


def _without_tie(label: PseudoLabel) -> PseudoLabel:
    return replace(label, kept=False) if is_tied(label) else label


def _spread(counts: Sequence[tuple[int, int, int]]) -> Spread:
    kept = [float(found) for found, _, _ in counts]
    shares = [right / known for _, known, right in counts if known]
    return Spread(
        resamples=len(counts),
        kept_mean=statistics.fmean(kept),
        kept_sd=statistics.stdev(kept) if len(kept) > 1 else None,
        accuracy_kept_mean=statistics.fmean(shares) if shares else None,
        accuracy_kept_sd=statistics.stdev(shares) if len(shares) > 1 else None,
    )


def _powers_of_two(stored: int) -> list[int | None]:
    return [*(2**power for power in range(stored.bit_length()) if 2**power < stored), stored]


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]
