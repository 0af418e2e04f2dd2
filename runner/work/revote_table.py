"""The settings of one set of stored samples, and the row that each gives: what `nsd revote` shows (revote.py).

table = Table(voting).table(ks=[2, 4], thresholds=[0.5], ties="first", resamples=0, rules=[])
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from typing import Any

from nsd.plugins.api import PseudoLabel
from nsd.plugins.errors import InputError
from nsd.plugins.seeds import stream
from nsd.runner.store import tables
from nsd.runner.work.voting_again import Setting, Voting, is_tied


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
    have this setting. `asked` says whether the options name it, or name none. `spec` is the labeler's block of a spec,
    None where no spec can say it.
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
    asked: bool
    spec: dict[str, Any] | None


@dataclass(frozen=True)
class Revotes:
    """All settings over one set of stored samples: `stored` of each of `questions` questions, `drawn` in all.

    Where votes `stopped` early, `stored` is the most that a question can have.
    """

    labels_of: list[str]
    labeler: str
    verifier: str
    stored: int
    stopped: bool
    drawn: int
    questions: int
    rows: list[VoteRow]
    notes: list[str]


class Table:
    """The settings of a table, and their rows."""

    def __init__(self, voting: Voting) -> None:
        self.voting = voting

    def settings(
        self, ks: Sequence[int], thresholds: Sequence[float], ties: str, rules: Sequence[Mapping[str, Any]] = ()
    ) -> dict[Setting, bool]:
        """Settings in order, each with whether it was asked for; the others are the original and the plain ones.

        Raises InputError for one that was asked for and that the labeler, or what is stored, does not allow.
        """
        voting = self.voting
        fields = voting.labeler_class.Config.model_fields
        stops = [one for one in rules if "stop_vote" in one]
        for name, given in (("k", ks), ("threshold", thresholds), ("stop_vote", stops)):
            if given and name not in fields:
                raise InputError(
                    f"--{name.replace('_', '-')}: labeler {voting.labeler_class.name!r} has no field {name!r}"
                )
        for k in ks:
            if k > voting.stored:
                raise InputError(
                    f"--k {k}: {voting.stored} samples of each question are stored for {voting.name}; more need to be "
                    f"generated, with k: {k} in the spec's labeler and nsd run"
                )
        original = {voting.original(one) for one in voting.group}
        chosen_ks: list[int | None] = [*ks] or ([None] if "k" not in fields else _powers_of_two(voting.stored))
        chosen_thresholds: list[float | None] = [*thresholds] or sorted({one.threshold for one in original}, key=_first)
        own = {Setting(k, t, ties) for k, t in itertools.product(chosen_ks, chosen_thresholds)}
        # A sample's weight breaks every tie, so that a weighted vote drops none.
        ruled = {
            replace(one, **rule, ties=one.ties if "stop_vote" in rule else "first") for one in own for rule in rules
        }
        asked = {replace(one, stop_vote=voting.own_rule) for one in own} | ruled
        for setting in sorted(asked, key=_order):
            voting.labeler(setting)  # a refused value is found before anything is counted
            _check_ties(setting)
        every = asked | original | {one.plain for one in ruled}
        found = {setting: setting in asked for setting in sorted(every, key=_order)}
        return self._check_decided(found, original, bool(ks or thresholds or rules)) if voting.stopped else found

    def _check_decided(
        self, settings: Mapping[Setting, bool], original: Set[Setting], named: bool
    ) -> dict[Setting, bool]:
        """The settings that the samples of votes that stopped early suffice for. Raises InputError for a named one."""
        found: dict[Setting, bool] = {}
        for setting, asked in settings.items():
            short = self.voting.short(setting)
            if not short or setting in original:
                found[setting] = asked
            elif asked and named:
                raise InputError(
                    f"the votes of {self.voting.name} stopped early, and {short} of {len(self.voting.asked)} questions "
                    f"have too few samples for {_words(setting)}: an arm with it in the spec draws the rest alone, one "
                    "without stop_vote all of them, and nsd revote then votes over those"
                )
        if len(found) < len(settings):
            self.voting.notes.append(
                f"the votes stopped early: {len(settings) - len(found)} of {len(settings)} settings would ask for more "
                "samples and are left out"
            )
        return found

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
        if self.voting.stopped and resamples:
            raise InputError(
                f"--resample: the votes of {self.voting.name} stopped early, so that not every choice of samples is "
                "stored; an arm without stop_vote draws the rest"
            )
        self._check_original()
        spreads = self._spreads(list(settings), resamples)
        rows = []
        voted = {setting: self.voting.vote(setting, self.voting.samples) for setting in settings}
        originals: dict[Setting, list[str]] = {}
        for one in self.voting.group:
            originals.setdefault(self.voting.original(one), []).append(one.name)
        for setting, asked in settings.items():
            labels, base = voted[setting], _base(setting, voted)
            kept, known, right = self.voting.kept(labels)
            rows.append(
                VoteRow(
                    **asdict(setting),
                    seen=self._seen(setting, labels),
                    against=None if base is None else self._against(labels, voted[base]),
                    voted=sum(label.label is not None for label in labels),
                    tied=sum(map(is_tied, labels)),
                    kept=kept,
                    coverage=kept / len(labels) if labels else 0.0,
                    known_kept=known,
                    right_kept=right,
                    accuracy_kept=right / known if known else None,
                    spread=spreads.get(setting),
                    original_of=originals.get(setting, []),
                    asked=asked,
                    spec=self._spec(setting),
                )
            )
        return Revotes(
            labels_of=[one.name for one in self.voting.group],
            labeler=self.voting.key["labeler"]["use"],
            verifier=self.voting.key["verifier"]["use"],
            stored=self.voting.stored,
            stopped=self.voting.stopped,
            drawn=sum(map(len, self.voting.samples.values())),
            questions=len(self.voting.questions),
            rows=rows,
            notes=self.voting.notes,
        )

    def _seen(self, setting: Setting, labels: Sequence[PseudoLabel]) -> int:
        there = (
            min(len(self.voting.samples.get(one.question_id, ())), setting.k or self.voting.stored) for one in labels
        )
        return sum(most if one.drawn is None else one.drawn for one, most in zip(labels, there, strict=True))

    def _against(self, labels: Sequence[PseudoLabel], plain: Sequence[PseudoLabel]) -> Against:
        this, that = (
            [
                one.kept and self.voting.right(one, question)
                for one, question in zip(given, self.voting.questions, strict=True)
            ]
            for given in (labels, plain)
        )
        pairs = [(bool(a), bool(b)) for a, b in zip(this, that, strict=True)]
        return Against(sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs))

    def _check_original(self) -> None:
        """Say so where today's code no longer gives the stored labels: then the table is not about them."""
        for one in self.voting.group:
            labels = self.voting.vote(self.voting.original(one), self.voting.samples)
            stored = tables.read(self.voting.workspace.folder("label", one.manifest.digest) / "labels.parquet")
            differing = sum(
                (row["label"], row["votes"], row["kept"]) != (label.label, label.votes, label.kept)
                for row, label in zip(stored, labels, strict=True)
            )
            if differing:
                self.voting.notes.append(
                    f"the original vote of {one.name} comes out differently for {differing} of {len(stored)} "
                    "questions: the code has changed since, and this table is of today's"
                )

    def _spreads(self, settings: Sequence[Setting], resamples: int) -> dict[Setting, Spread]:
        import numpy as np

        whole = [setting for setting in settings if setting == setting.plain]
        partial = [setting for setting in whole if setting.k is not None and setting.k < self.voting.stored]
        found: dict[Setting, list[tuple[int, int, int]]] = {setting: [] for setting in partial}
        for number in range(resamples if partial else 0):
            # One order for all K: the settings are then compared on the same choices.
            generator = np.random.default_rng(stream(self.voting.key["seed"], "revote", number))
            shuffled = {
                key: [drawn[i] for i in generator.permutation(len(drawn)).tolist()]
                for key, drawn in self.voting.samples.items()
            }
            for setting in partial:
                found[setting].append(self.voting.kept(self.voting.vote(setting, shuffled)))
        return {setting: _spread(counts) for setting, counts in found.items() if counts}

    def _spec(self, setting: Setting) -> dict[str, Any] | None:
        if setting.ties != "first" or setting.weights:
            return None
        config = self.voting.labeler(setting).config
        fields = type(config).model_fields
        written = {name: value for name, value in config.model_dump(mode="json").items() if name in ("k", "threshold")}
        changed = {
            name: value
            for name, value in config.model_dump(mode="json").items()
            if name not in written and value != fields[name].get_default(call_default_factory=True)
        }
        return {"use": self.voting.key["labeler"]["use"], **written, **changed}


def _order(setting: Setting) -> tuple[Any, ...]:
    rule = (setting.weights, setting.stop_vote)
    return setting.k or 0, setting.threshold or 0.0, setting.ties != "first", rule


def _first(threshold: float | None) -> float:
    return -1.0 if threshold is None else threshold


def _base(setting: Setting, there: Collection[Setting]) -> Setting | None:
    """The vote that a rule is counted against: the plain one, or where that is not stored one that keeps the same."""
    if setting == setting.plain:
        return None
    exact = replace(setting.plain, stop_vote="exact")
    return next((one for one in (setting.plain, exact) if one in there and one != setting), None)


def _check_ties(setting: Setting) -> None:
    if setting.stop_vote == "exact" and setting.ties == "drop" and (setting.threshold or 0.0) <= 0.5:
        raise InputError(
            f"--ties drop with stop_vote exact at threshold {setting.threshold or 0.0:g}: the vote stops before it is "
            "known whether it ends in a tie; take a threshold above 0.5, where nothing ties, or leave one out"
        )


def _words(setting: Setting) -> str:
    told = {"k": setting.k, "threshold": setting.threshold, "weights": setting.weights, "stop_vote": setting.stop_vote}
    return ", ".join(f"{name} {value}" for name, value in told.items() if value not in (None, ""))


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
