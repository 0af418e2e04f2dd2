"""Reads `evals:`, several measurements of every condition, beside the single `eval:`.

    evals:
      main: {use: avg_at_k, k: 4}                                  # the first is the default of claims and tables
      retention: {data: {use: jsonl, test: ./old.jsonl}, verifier: numeric, temperature: 0}

An evaluation is a protocol with its fields, and may have `data`, `verifier` and `prompt` of its own: they lie over
those of the condition, as a condition's lie over those of the spec. Data that name another dataset start from that
dataset's verifier and prompt. What is asked is the test split of its data. A condition may change single fields
(`evals: {main: {temperature: 0}}`) or leave out one that is not the first (`evals: {retention: null}`).

A name is a label: it is part of no stage's digest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from nsd.runner.spec.errors import Problems, suggest
from nsd.runner.spec.merge import EVALS_FORM, NAME, PARTS, merge_block
from nsd.runner.spec.model import Condition
from nsd.runner.spec.yaml import Item

_ROUND = re.compile(r"round\d+")  # `student@round1` is a round of a condition


def read_names(tree: Item, problems: Problems) -> tuple[str, ...]:
    """The names of a spec's evaluations in order, () where it has one without a name."""
    written = tree.mapping.get("evals")
    if written is None or written.value is None or not isinstance(written.value, dict):
        return ()  # what is no mapping was reported when the short forms were written out
    single = tree.mapping.get("eval")
    if single is not None and single.value is not None:
        problems.add(
            written.place,
            "eval and evals both say how conditions are measured",
            "name the one of eval in evals too, or take the other away:  eval: null",
        )
    names = tuple(name for name, item in written.mapping.items() if item.value is not None)
    if not names:
        way_out = f"{EVALS_FORM}, or remove it: eval is accuracy by default"
        problems.add(written.place, "evals names no evaluation", way_out)
    for name in names:
        place = written.mapping[name].place
        if not NAME.fullmatch(name) or name in (".", ".."):
            problems.add(place, f"the evaluation's name {name[:60]!r} may hold only letters, digits, dots, - and _")
        elif len(name) > 100:
            problems.add(place, "an evaluation's name may have at most 100 characters")
        elif _ROUND.fullmatch(name):
            problems.add(place, f"{name!r} would name a round of a condition", "give the evaluation another name")
    return names


def check_override(written: Item, names: tuple[str, ...], where: str, problems: Problems) -> None:
    """What a condition says of evaluations fits those of the spec."""
    single, several = written.mapping.get("eval"), written.mapping.get("evals")
    if names and single is not None and single.value is not None:
        way_out = f"write  evals: {{{names[0]}: {{...}}}}"
        problems.add(single.place, f"{where} changes eval, and the spec names its evaluations in evals", way_out)
    if several is None or not isinstance(several.value, dict):
        return
    if not names:
        way_out = "name them there, or change the only one:  eval: {...}"
        problems.add(several.place, f"{where} changes evals, and the spec has none at its top", way_out)
        return
    for name, item in several.mapping.items():
        if name not in names:
            problems.add(item.place, f"there is no evaluation {name!r}", suggest(name, names))
        elif item.value is None and name == names[0]:
            told = f"{where} leaves out {name!r}, the first evaluation, which every condition has"
            problems.add(item.place, told, "leave out another one, or put another one first")


def written_of(merged: Item, names: tuple[str, ...]) -> dict[str, Item]:
    """The evaluations of a condition with all overrides, in the order of the spec; those left out are not there."""
    written = merged.mapping.get("evals")
    entries = {} if written is None else written.mapping
    return {name: entries[name] for name in names if name in entries and isinstance(entries[name].value, dict)}


def protocol_of(entry: Item) -> Item:
    """The part of an evaluation that is its protocol."""
    return entry.with_value({key: item for key, item in entry.mapping.items() if key not in PARTS})


def parts_of(entry: Item, items: Mapping[str, Item]) -> dict[str, Item]:
    """The data, verifier and prompt that an evaluation is written with, over a condition's (`items`)."""
    own = {key: item for key, item in entry.mapping.items() if key in PARTS and item.value is not None}
    before, after = (one.get("data") for one in (items, own))
    use = None if after is None else after.mapping.get("use")
    theirs_too = None if before is None else before.mapping.get("use")
    elsewhere = use is not None and (theirs_too is None or theirs_too.value != use.value)
    found = {}
    for key in PARTS:
        theirs = None if elsewhere else items.get(key)
        mine = own.get(key)
        if mine is not None and theirs is not None:
            mine = merge_block(key, theirs, mine)
        if (item := mine if mine is not None else theirs) is not None:
            found[key] = item
    return found


def check_differ(condition: Condition, entries: Mapping[str, Item], problems: Problems) -> None:
    """No two evaluations of a condition measure the same."""
    seen: dict[str, str] = {}
    for evaluation in condition.evals:
        said = evaluation.identity()
        if said in seen:
            problems.add(
                entries[evaluation.name].place,
                f"evals: {evaluation.name!r} measures the same as {seen[said]!r}",
                "give one of them other data, another verifier or another protocol, or remove it",
            )
        seen.setdefault(said, evaluation.name)
