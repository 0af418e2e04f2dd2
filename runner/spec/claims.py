"""Reads `hypotheses:`: claims about pairs of conditions, with every name checked.

    hypotheses = read_hypotheses(item, swept, known, problems)

`on` names the evaluation that decides a claim, where the spec has several (`evals`); the first one needs no name.
A claim that names a swept condition becomes one claim for each of its points; see runner/spec/sweep.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from nsd.runner.spec.check import describe, validate
from nsd.runner.spec.errors import Problems, suggest
from nsd.runner.spec.model import Claim, ClaimConfig, Hypotheses, HypothesesConfig, beside_name
from nsd.runner.spec.sweep import Swept
from nsd.runner.spec.yaml import Item

MEASURE_ALIKE = "measure both alike, or claim something else"
_CLAIM = re.compile(r"\s*([A-Za-z0-9._-]+)\s*([<>])\s*([A-Za-z0-9._-]+)\s*")
_CLAIM_FORMS = (
    "write  a > b  or  {compare: [a, b], not_worse_by: 0.02}  or  {compare: [a, b], equivalent_within: 0.02}  or  "
    "{compare: [a, b], by: level}"
)


def read_hypotheses(
    item: Item | None,
    swept: Swept,
    known: Callable[[Item], bool],
    problems: Problems,
    measured: Mapping[str, Collection[str]] | None = None,
    apart: Callable[[str, str], str] = lambda a, b: "",
) -> Hypotheses | None:
    """The hypotheses of a spec, None where it has none. `known` says whether a condition exists, else reports it.

    `measured` holds the spec's evaluations in order, each with the conditions that leave it out; `apart` says what two
    conditions are measured with that differs, "" where nothing does.
    """
    if item is None or item.value is None:
        return None
    config = validate(HypothesesConfig, item, "hypotheses", problems)
    reader = _Reader(swept, known, problems, measured or {}, apart)
    claims: list[Claim] = []
    written = item.mapping.get("claims")
    for element in written.items if written is not None else []:
        for claim in reader.claim(element):
            if claim.by is not None and config is not None and config.looks == "any":
                told = f"the claim {claim.text!r} could never be judged: by a field there is no test for `looks: any`"
                problems.add(element.position, told, "plan a number of looks (looks: 3), or claim it in another spec")
            if _same(claim) in map(_same, claims):
                problems.add(element.position, f"the claim {claim.text!r} stands here twice")
            claims.append(claim)
    return (
        None
        if config is None
        else Hypotheses(config.alpha, config.correction, tuple(claims), config.looks, config.detect)
    )


@dataclass
class _Reader:
    swept: Swept
    known: Callable[[Item], bool]
    problems: Problems
    measured: Mapping[str, Collection[str]]
    apart: Callable[[str, str], str]

    def claim(self, item: Item) -> list[Claim]:
        kind, margin, on, by = "better", None, None, None
        if isinstance(item.value, str):
            match = _CLAIM.fullmatch(item.value)
            if match is None:
                self.problems.add(item.position, f"cannot read the claim {item.value[:80]!r}", _CLAIM_FORMS)
                return []
            a, sign, b = match.groups()
            pair = [item.with_value(a), item.with_value(b)]
            if sign == "<":
                pair.reverse()
        elif isinstance(item.value, dict):
            config = validate(ClaimConfig, item, "the claim", self.problems)
            if config is None:
                return []
            pair = item.mapping["compare"].items
            margins = {key: getattr(config, key) for key in ("not_worse_by", "equivalent_within")}
            given = [key for key, value in margins.items() if value is not None] + ["better"] * bool(config.better)
            given += ["interaction"] * (config.by is not None)
            if len(given) != 1:
                told = "a claim says one of better, not_worse_by, equivalent_within or by"
                self.problems.add(item.position, told, _CLAIM_FORMS)
                return []
            kind, margin, on, by = given[0], margins.get(given[0]), item.mapping.get("on"), config.by
        else:
            self.problems.add(item.position, f"a claim must be text or a mapping, is {describe(item)}", _CLAIM_FORMS)
            return []
        if on is not None and on.value is not None and not self.evaluation(on):
            return []
        name = None if on is None or on.value in (None, *list(self.measured)[:1]) else str(on.value)
        pairs = self.claim_pairs(pair)
        if name is not None and on is not None:
            for left in dict.fromkeys(one for both in pairs for one in both if one in self.measured[name]):
                told = f"the claim is about {name!r}, and {left!r} leaves this evaluation out"
                self.problems.add(on.position, told, "let it have it, or claim something else")
        found = [_claim(kind, a, b, margin, name, by) for a, b in pairs]
        for one in found:
            if differs := self.apart(one.better, one.worse):
                told = f"the claim {one.text!r} could never be judged: its conditions are measured with {differs}"
                self.problems.add(item.position, told, MEASURE_ALIKE)
                break  # of a sweep the first point will do
        return found

    def evaluation(self, on: Item) -> bool:
        """Whether the spec has an evaluation of this name; one that it has not is reported."""
        if on.value in self.measured:
            return True
        if self.measured:
            self.problems.add(
                on.position, f"there is no evaluation {on.value!r}", suggest(str(on.value), self.measured)
            )
        else:
            told = "on names one of several evaluations, and the spec has a single one"
            self.problems.add(on.place, told, "remove it, or name them at the top:  evals: {main: ..., other: ...}")
        return False

    def claim_pairs(self, pair: list[Item]) -> list[tuple[str, str]]:
        """The conditions that a claim compares; a swept condition stands for each of its points."""
        names = [str(item.value) for item in pair]
        if names[0] == names[1]:
            self.problems.add(pair[0].position, f"the claim compares {names[0]!r} with itself")
            return []
        spread = [self.swept.points.get(name) for name in names]
        if spread[0] and spread[1] and self.swept.sweep_of[names[0]] != self.swept.sweep_of[names[1]]:
            self.problems.add(
                pair[0].position, f"{names[0]!r} and {names[1]!r} are swept apart: name the points to compare"
            )
            return []
        known = [bool(points) or self.known(item) for points, item in zip(spread, pair, strict=True)]
        if not all(known):
            return []
        size = max(len(points) if points else 1 for points in spread)
        columns = [points or [name] * size for points, name in zip(spread, names, strict=True)]
        return list(zip(*columns, strict=True))


def _same(claim: Claim) -> tuple[str | None, ...]:
    """Equal for two claims that say the same, whatever their margins; an interaction has no first side."""
    sides = (claim.better, claim.worse)
    return (claim.kind, claim.by, *(sorted(sides) if claim.by is not None else sides))


def _claim(kind: str, a: str, b: str, margin: float | None, on: str | None, by: str | None) -> Claim:
    where = "" if on is None else f" on {on}"
    sides = (a, b) if on is None else (beside_name(a, on), beside_name(b, on))
    if kind == "better":
        return Claim(f"{a} > {b}{where}", "better", *sides, on=on)
    if kind == "interaction":
        return Claim(f"{a} against {b} differs by {by}{where}", "interaction", *sides, on=on, by=by)
    if kind == "not_worse_by":
        return Claim(f"{a} not worse than {b} by {margin:g}{where}", "not_worse_by", *sides, margin, on)
    return Claim(f"{a} equivalent to {b} within {margin:g}{where}", "equivalent_within", *sides, margin, on)
