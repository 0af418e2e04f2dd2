"""Which runs of two arms are compared with each other, and what the comparison is about.

    chosen = choose_seeds(arm_a, arm_b)
    gather(chosen.a, chosen.b, values, chosen.reading)

Every way to compare two arms goes through here, so that it rests on the same runs.
"""

from __future__ import annotations

from typing import NamedTuple

from nsd.reports.judge.metrics import is_search
from nsd.reports.judge.pairs import about_recipe
from nsd.reports.judge.runs import Arm


class Chosen(NamedTuple):
    """Arms as they are compared: `subject` is what the claim is about, `note` what was left out, `reading` the kind."""

    a: Arm
    b: Arm
    subject: str
    note: str
    reading: str | None


def choose_seeds(a: Arm, b: Arm, about: str | None = None) -> Chosen:
    """The arms to compare, what the claim is about, and a note where seeds had to be left out.

    A claim about a recipe speaks of training again, so it needs seeds in the arms that train; one about the weights
    takes all weights that there are, the mean over them. Where nothing is asked for and a trained arm has one seed, the
    other arm's weights of that seed are its match. Where neither arm trains, nothing is said of a recipe, whatever is
    asked for.
    """
    many_a, many_b = len(a.observations), len(b.observations)
    if not (a.trained or b.trained):
        return _untrained(a, b)
    if about == "recipe" or (about is None and about_recipe(a, b)):
        counts = list(dict.fromkeys(len(arm.observations) for arm in (a, b) if arm.trained))
        still = next((f"; {_short(arm)} is not trained" for arm in (a, b) if not arm.trained), "")
        return Chosen(a, b, f"this recipe ({' and '.join(map(str, counts))} training seeds{still})", "", about)
    if about == "checkpoint" and max(many_a, many_b) > 1:
        apart = many_a != many_b and a.trained and b.trained
        many = f"{many_a} and {many_b}" if apart else max(many_a, many_b)
        return Chosen(a, b, f"these checkpoints ({many} seeds, their mean per question)", "", about)
    common = sorted({run.seed for run in a.runs if run.seed is not None} & {run.seed for run in b.runs})
    if common:
        picked = [next(run for run in arm.runs if run.seed == common[0]) for arm in (a, b)]
    else:
        picked = [a.runs[0], b.runs[0]]
    seeds = list(dict.fromkeys(run.seed for run in picked if run.trained))
    subject = f"this checkpoint (seed {seeds[0]})"
    if len(seeds) > 1:
        subject = f"these checkpoints (seeds {seeds[0]} and {seeds[1]})"
    if any(is_search(run.metric) for run in picked):
        which = f"seed{'' if len(seeds) == 1 else 's'} {' and '.join(map(str, seeds))}"
        subject = f"one search of each question by each ({which})"
    notes = [_alike_note(arm) for arm in (a, b)]
    if max(many_a, many_b) > 1:
        few = min((arm for arm in (a, b) if arm.trained), key=lambda arm: len(arm.observations))
        what = "seed" if len(few.observations) == len(few.runs) else "distinct model"
        notes.append(f"{_short(few)} has one {what} only, so the other seeds are left out")
    note = "; ".join(filter(None, notes))
    return Chosen(Arm(a.name, (picked[0],)), Arm(b.name, (picked[1],)), subject, note, about)


def _alike_note(arm: Arm) -> str:
    """The note on an arm with seeds that left the same weights."""
    if arm.copies or not arm.trained or len(arm.observations) == len(arm.runs):
        return arm.copies_note
    return f"{arm.name}: {len(arm.runs)} seeds left {len(arm.observations)} distinct model(s)"


def _untrained(a: Arm, b: Arm) -> Chosen:
    """Models as they are: every draw counts, as many of each as both have."""
    draws = min(sum(map(len, arm.observations)) for arm in (a, b))
    kept = [Arm(arm.name, tuple(run for mine in arm.observations for run in mine)[:draws]) for arm in (a, b)]
    left = [arm for arm in (a, b) if sum(map(len, arm.observations)) > draws]
    note = f"{_short(left[0])} was sampled more often: only {draws} of its evaluations count" if left else ""
    copied = "; ".join(filter(None, (arm.copies_note for arm in (a, b))))
    return Chosen(
        kept[0],
        kept[1],
        "these models as they are (nothing was trained)",
        "; ".join(filter(None, (note, copied))),
        None,
    )


def _short(arm: Arm) -> str:
    return str(arm.runs[0].condition or arm.name)
