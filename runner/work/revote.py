"""`nsd revote`: the vote of a label stage again, over its stored samples, with another K, threshold or tie rule.

    for votes in revote(workspace, ["quickstart"], ks=[2, 4], thresholds=[0.5]):
        for row in votes.rows: print(row.k, row.threshold, row.kept, row.right_kept)

The stage's own labeler and verifier classes vote, with their configs validated anew; K takes the first K samples, as
the stage would. Completions are read once and answers grouped once for each set of samples, so a table costs little
more than one vote. Nothing is generated and nothing is written.

A row of an arm with `stop_vote` votes by that rule too. Another rule may vote beside the plain vote of the same K
and threshold, weighted by stored confidences (`weights`) or
stopped early (`stop_votes`), and is counted against it question by question.

Samples of votes that stopped early hold what those asked for. A setting that would ask for more is an error.

Limits: it sees only what was sampled, so another temperature needs a run. Random choices of K among N stored
samples (`resamples`) overlap, the more the nearer K is to N: their spread is too small there, and none is given at N.
Votes of a plugin in a file cannot be repeated: stored results name no place, and no file is run for a report.
"""

from __future__ import annotations

from collections.abc import Sequence

from nsd.plugins.api import Confidence
from nsd.plugins.errors import InputError
from nsd.runner.store.index import Store
from nsd.runner.store.workspace import Workspace, canonical_json
from nsd.runner.work.labelled import labelled_runs
from nsd.runner.work.revote_table import Revotes, Table
from nsd.runner.work.voting_again import LabelSet, Voting

TIE_RULES = ("first", "drop")
WEIGHTS = tuple(Confidence.__dataclass_fields__)


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
    voted from samples, and for a verifier whose answers cannot be voted on; where other labels can be voted on again,
    it is a note.
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
    found, refused = [], []
    for group in groups:
        try:
            found.append(Table(Voting(workspace, group)).table(ks, thresholds, ties, resamples, rules))
        except InputError as error:
            refused.append(error)
    if not found:
        raise refused[0]
    found[0].notes.extend(f"left out: {error}" for error in refused)
    found[0].notes.extend(_no_samples(one) + ", so they are not in the table" for one in without_samples)
    return found


def _no_samples(labels: LabelSet) -> str:
    use = labels.manifest.made_of["labeler"]["use"]
    return f"the labels of {labels.name} come from labeler {use!r}, which draws no samples to vote on again"


def _groups(workspace: Workspace, names: Sequence[str]) -> tuple[list[list[LabelSet]], list[LabelSet]]:
    """Label sets that differ in K and threshold alone stand in one table; those without samples in none."""
    with Store(workspace).read() as connection:
        runs = labelled_runs(connection, names)
    sets: dict[str, LabelSet] = {}
    for run in runs:
        if run.label_digest not in sets:
            sets[run.label_digest] = LabelSet(workspace.manifest("label", run.label_digest))
        found = sets[run.label_digest]
        found.runs.append(run.run)
        if run.condition not in found.conditions:
            found.conditions.append(run.condition)
    voted = [one for one in sets.values() if "samples" in one.manifest.inputs]
    others = [one for one in sets.values() if one not in voted]
    if not voted:
        raise InputError(_no_samples(others[0]))
    groups: dict[str, list[LabelSet]] = {}
    for one in voted:
        key = one.manifest.made_of
        rest = {name: value for name, value in key["labeler"]["config"].items() if name not in ("k", "threshold")}
        same = {**key, "labeler": {**key["labeler"], "config": rest}}
        groups.setdefault(canonical_json(same), []).append(one)
    return list(groups.values()), others
