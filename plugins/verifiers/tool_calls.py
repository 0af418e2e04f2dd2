"""`tool_calls`: the calls of a completion against those of the gold answer, with feedback on what differs.

    Thought: ...
    Action: convertCurrency
    Action Input: {"from": "EUR", "to": "GBP", "amount": 5000}

A call is the rest of a line after `Action:`, and the JSON object after the `Action Input:` that follows it. The order
of the calls does not matter, how often each is made does. With `inputs: each` every call must have its own input; with
`inputs: merged` the names must agree, and all inputs as one object in which a later value replaces an earlier one: that
is how SDPO's study judges tool use (arXiv 2601.20802), so that inputs swapped between two tools may pass there.

A gold answer is a JSON list of {"Action": NAME, "Action_Input": OBJECT or its text}. Numbers are the same by value (5
and 5.0). Feedback names both sides: it belongs to a teacher or to the next attempt, never to a test.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from nsd.plugins.api import PluginConfig, Question, Score, Verifier
from nsd.plugins.registry import plugin

LONGEST_FEEDBACK = 2000  # characters
_CALL = re.compile(r"\bAction:")
_INPUT = "Action Input:"
Call = tuple[str, dict[str, Any] | None]  # an input that cannot be read is None


@plugin("verifier", "tool_calls")
class ToolCalls(Verifier):
    """Calls by name and input, as a multiset."""

    gives_feedback = True

    class Config(PluginConfig):
        inputs: Literal["each", "merged"] = Field(
            default="each", description="Compare every call's own input, or all inputs merged into one object."
        )

    config: Config

    def extract(self, completion: str) -> str | None:
        """The calls in one form, as JSON; None where there is none, or an input is no JSON object."""
        return self._form(_calls(completion))

    def normalise(self, answer: str) -> str | None:
        """The calls of a gold answer in the same form."""
        return self._form(_gold(answer))

    def score(self, completion: str, question: Question) -> Score:
        """Judge one completion; one that is wrong comes with feedback."""
        score = super().score(completion, question)
        gold = [] if question.answer is None else _gold(question.answer)
        if score.correct or not gold:
            return score
        lines = "\n".join(_differences(_calls(completion), gold))
        return replace(score, feedback=lines[:LONGEST_FEEDBACK])

    def _form(self, calls: Sequence[Call]) -> str | None:
        if not calls or any(given is None for _, given in calls):
            return None
        if self.config.inputs == "each":
            return json.dumps(sorted([name, _text(given)] for name, given in calls))
        merged = {key: value for _, given in calls for key, value in (given or {}).items()}
        return json.dumps([sorted(name for name, _ in calls), _text(merged)])


def _calls(text: str) -> list[Call]:
    """The calls of a completion, in order; without an input a call has the empty one."""
    found: list[Call] = []
    for part in _CALL.split(text)[1:]:
        before, written, after = part.partition(_INPUT)
        name = before.partition("\n")[0].strip()
        found.append((name, _object(after) if written else {}))
    return found


def _gold(answer: str) -> list[Call]:
    """The calls of a gold answer; [] for text that is none."""
    try:
        listed = json.loads(answer)
        found = [(str(call["Action"]).strip(), call.get("Action_Input", {})) for call in listed]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []
    return [(name, _object(given if isinstance(given, str) else json.dumps(given))) for name, given in found]


def _object(text: str) -> dict[str, Any] | None:
    """The JSON object that a text begins with, whatever follows it."""
    try:
        found, _ = _DECODER.raw_decode(text.lstrip())
        if not isinstance(found, dict):
            return None
        _text(found)  # what is nested too deeply to be written is no input either
    except (ValueError, RecursionError):
        return None
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)


def _text(value: Any) -> str:
    """JSON in one form: keys sorted, whole numbers without a point."""

    def plain(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: plain(inner) for key, inner in part.items()}
        if isinstance(part, list):
            return [plain(inner) for inner in part]
        return int(part) if isinstance(part, float) and part.is_integer() else part

    return json.dumps(plain(value), sort_keys=True)


def _differences(calls: Sequence[Call], gold: Sequence[Call]) -> list[str]:
    """Sentences on what differs."""
    if not calls:
        return ["There is no line with `Action:`."]
    said = [f"The input of {name} is no JSON object." for name, given in calls if given is None]
    made, wanted = Counter(name for name, _ in calls), Counter(name for name, _ in gold)
    said += [f"The action {name} is missing." for name in (wanted - made).elements()]
    said += [f"The action {name} is not asked for." for name in (made - wanted).elements()]
    for name in sorted(made.keys() & wanted.keys()):
        mine = Counter(_text(given) for other, given in calls if other == name and given is not None)
        theirs = Counter(_text(given) for other, given in gold if other == name)
        pairs = zip((mine - theirs).elements(), (theirs - mine).elements(), strict=False)
        said += [f"The input of {name} is {one}, expected {other}." for one, other in pairs]
    return said or ["The inputs belong to other actions."]
