"""Reads `controls:`: arms that a claim should be held against, each in one line of a spec.

    controls: [maj_at_k]                                        # with  match: {by: generated_tokens, amount: 200000}
    controls: [{maj_at_k: {generated_tokens: 200000, temperature: 1.0}}]

`maj_at_k` is the untrained model's majority vote at as many generated tokens as a training may draw: what the same
sampling buys without training. It becomes an ordinary condition, `base_maj_at_k`, which claims may name.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from nsd.plugins.protocols.maj_at_k import MOST
from nsd.runner.spec.check import describe, validate
from nsd.runner.spec.errors import Problems, suggest
from nsd.runner.spec.yaml import Item


class MajAtKControl(BaseModel):
    """The untrained model's majority vote within a number of generated tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
    generated_tokens: int | None = Field(
        default=None, ge=1, description="Tokens of all completions together; match.amount where it is left out."
    )
    k: int = Field(default=MOST, ge=1, description="Completions of a question at most.")
    temperature: float = Field(default=0.7, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0, description="0 leaves every token in.")
    max_tokens: int | None = Field(
        default=None, ge=1, description="New tokens of one completion at most; those of eval where it is left out."
    )


CONTROLS = {"maj_at_k": MajAtKControl}


def read_controls(tree: Item, problems: Problems) -> dict[str, Item]:
    """A condition for each control, by name, as if it were written among the conditions."""
    written = tree.mapping.get("controls")
    found: dict[str, Item] = {}
    if written is None or written.value is None:
        return found
    if not isinstance(written.value, list):
        problems.add(written.position, f"controls must be a list, is {describe(written)}", "such as  [maj_at_k]")
        return found
    for item in written.items:
        one = _named(item, problems)
        if one is None:
            continue
        name, block = f"base_{one[0]}", one[1]
        if name in found:
            problems.add(item.position, f"the control {one[0]} stands here twice")
        elif name in tree.mapping.get("conditions", tree).mapping:
            told = f"the control {one[0]} makes a condition {name!r}, and there is one of that name"
            problems.add(item.position, told, "rename the condition, or remove the control")
        elif (condition := _maj_at_k(tree, block, problems)) is not None:
            found[name] = condition
    return found


def _named(item: Item, problems: Problems) -> tuple[str, Item] | None:
    """The control's name and its block."""
    if isinstance(item.value, str):
        name, block = item.value, item.with_value({})
    elif isinstance(item.value, dict) and len(item.value) == 1:
        ((name, block),) = item.mapping.items()
        block = block.with_value({}) if block.value is None else block
    else:
        told = f"a control must be a name, or a name with its fields, is {describe(item)}"
        problems.add(item.position, told, "such as  maj_at_k  or  {maj_at_k: {generated_tokens: 200000}}")
        return None
    if name not in CONTROLS:
        problems.add(item.position, f"there is no control {name!r}", suggest(name, CONTROLS))
        return None
    if not isinstance(block.value, dict):
        told = f"the fields of the control {name} must be a mapping, is {describe(block)}"
        problems.add(block.position, told, f"such as  {{{name}: {{generated_tokens: 200000}}}}")
        return None
    return name, block


def _maj_at_k(tree: Item, block: Item, problems: Problems) -> Item | None:
    config = validate(MajAtKControl, block, "the control maj_at_k", problems)
    if config is None:
        return None
    tokens = config.generated_tokens
    match = tree.mapping.get("match")
    if tokens is None and match is not None:
        by, amount = match.mapping.get("by"), match.mapping.get("amount")
        if by is not None and by.value == "generated_tokens" and amount is not None:
            if not isinstance(amount.value, int | float) or amount.value != int(amount.value):
                return None  # reported where match is read
            tokens = int(amount.value)
    if tokens is None:
        problems.add(
            block.position,
            "the control maj_at_k needs to know how many tokens it may generate",
            "match: {by: generated_tokens, amount: 200000}, or {maj_at_k: {generated_tokens: 200000}}",
        )
        return None

    def given(value: str | float | dict[str, Item] | list[Item]) -> Item:
        return Item(value, block.position, raw=str(value), key=block.key)

    fields = {name: getattr(config, name) for name in ("k", "temperature", "top_p", "top_k")}
    how: dict[str, Item] = {
        name: given(value) for name, value in {"use": "maj_at_k", "generated_tokens": tokens, **fields}.items()
    }

    def measured(evaluation: Item | None) -> Item:
        inherited = {} if evaluation is None else evaluation.mapping
        mine = how | {name: inherited[name] for name in ("max_tokens", "stop") if name in inherited}
        return given(mine if config.max_tokens is None else mine | {"max_tokens": given(config.max_tokens)})

    several = tree.mapping.get("evals", tree.with_value(None)).mapping
    if several:  # each with its own data, verifier and prompt
        evals = {name: measured(one) for name, one in several.items() if one.value is not None}
        return given({"train_on": given([]), "evals": given(evals)})
    return given({"train_on": given([]), "eval": measured(tree.mapping.get("eval"))})
