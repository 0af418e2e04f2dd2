"""The fourteen families of `wordmath` stories: each draws numbers, tells the story and writes its solution.

A family is a function of a `Story` and a number of steps; it says sentences (wordings in
wordmath_templates.py) and takes exactly that many steps, each one line of the solution. It raises
`UnfitError` where the numbers drawn make no sound problem, and the caller draws again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from nsd.plugins.datasets import wordmath_templates as words

T = TypeVar("T")
LIMIT = 999
TIMES = {2: "twice", 3: "three times", 4: "four times"}


class Draw:
    """Draws by `random.random()` alone, the one method whose sequence Python promises never to change."""

    def __init__(self, seed: int) -> None:
        self.random: Callable[[], float] = random.Random(seed).random

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self.random() * len(options))]

    def between(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + int(self.random() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        return self.random() < probability

    def weighted(self, weights: Mapping[T, float]) -> T:
        """A key, by weight; keys in the mapping's order."""
        left = self.random() * sum(weights.values())
        for key, weight in weights.items():
            left -= weight
            if left < 0:
                return key
        return [key for key, weight in weights.items() if weight > 0][-1]


class UnfitError(Exception):
    """The numbers drawn do not make a sound problem (negative, too large, not divisible): draw again."""


@dataclass
class Story:
    """A problem in the making: its sentences, the words that fill them and the lines of its solution."""

    draw: Draw
    fill: dict[str, str | int] = field(default_factory=dict)
    sentences: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    result: int = 0

    def people(self) -> None:
        """Cast two different people as {n} (with pronouns {p}, {o}) and {n2}."""
        name, subject, object_ = self.draw.pick(words.PEOPLE)
        other = name
        while other == name:
            other = self.draw.pick(words.PEOPLE)[0]
        self.fill |= {"n": name, "p": subject, "o": object_, "n2": other}

    def say(self, phrases: Sequence[str], connect: bool = False, **fill: str | int) -> None:
        """Add one of the phrases as a sentence, with a connector before it where `connect`."""
        sentence = self.draw.pick(phrases).format_map({**self.fill, **fill})
        if connect:
            sentence = self.draw.pick(words.CONNECTORS) + sentence
        self.sentences.append(sentence[0].upper() + sentence[1:])

    def step(self, lead: str, a: int, operator: str, b: int) -> int:
        """Add the solution line `lead: a operator b = result` and return the result."""
        if operator == "/":
            if b == 0 or a % b:
                raise UnfitError
            result = a // b
        else:
            result = a + b if operator == "+" else a - b if operator == "-" else a * b
        if not 0 <= result <= LIMIT:
            raise UnfitError
        self.lines.append(f"{lead}: {a} {operator} {b} = {result}")
        self.result = result
        return result

    def distract(self) -> None:
        """Put in a sentence with a number that does not matter, never first and never last."""
        if self.draw.chance(0.2) and len(self.sentences) > 1:
            fill = {**self.fill, "x": self.draw.between(2, 30)}
            place = self.draw.between(1, len(self.sentences) - 1)
            self.sentences.insert(place, self.draw.pick(words.DISTRACTORS).format_map(fill))


# --------------------------------------------------------------------------- families


def _chain(story: Story, steps: int, theme: words.Theme) -> None:
    """A quantity that changes `steps` times; a change by k groups of m takes two steps."""
    draw = story.draw
    value = draw.between(6, 80)
    story.say(theme["opening"], x=value)
    shared = False
    while (left := steps - len(story.lines)) > 0:
        event = draw.weighted(
            {"gain": 4, "lose": 4, "times": 1, "half": 1, "share": 2 * (left == 1), "groups": 4 * (left > 1)}
        )
        number = draw.between(2, 60 if event == "gain" else max(2, min(60, value - 1)))
        if event == "gain":
            story.say(theme["gain"], connect=True, x=number, where=draw.pick(words.WHERE), job=draw.pick(words.JOBS))
            value = story.step("Now", value, "+", number)
        elif event == "lose":
            story.say(theme["lose"], connect=True, x=number, thing=draw.pick(words.GOODS))
            value = story.step("Left", value, "-", number)
        elif event == "times":
            factor = draw.between(2, 3)
            story.say(theme["times"], connect=True, times=TIMES[factor])
            value = story.step("Now", value, "*", factor)
        elif event == "half":
            story.say(theme["half"], connect=True)
            value = story.step("Left", value, "/", 2)
        elif event == "share":
            children = draw.pick([k for k in range(2, 10) if value % k == 0 and value > k] or [0])
            if not children:
                raise UnfitError
            story.distract()
            story.say(theme["share"], k=children)
            story.step("Each", value, "/", children)
            shared = True
        else:
            gains = draw.chance(0.6)
            groups, each = draw.between(2, 9), draw.between(2, 12)
            kind, lead = ("group_gain", "Added") if gains else ("group_lose", "Taken")
            story.say(theme[kind], connect=True, k=groups, m=each, g=draw.pick(words.GROUPS))
            total = story.step(lead, groups, "*", each)
            value = story.step("Now", value, "+", total) if gains else story.step("Left", value, "-", total)
    if not shared:
        story.distract()
        story.say(theme["ask"])


def _things(story: Story, steps: int) -> None:
    story.fill["i"] = story.draw.pick(words.ITEMS)
    _chain(story, steps, words.THINGS)


def _money(story: Story, steps: int) -> None:
    story.fill["i"] = story.draw.pick(words.ITEMS)
    _chain(story, steps, words.MONEY)


def _tank(story: Story, steps: int) -> None:
    story.fill["tank"] = story.draw.pick(words.TANKS)
    _chain(story, steps, words.TANK)


def _crowd(story: Story, steps: int) -> None:
    story.fill |= dict(zip(("i", "place", "come", "leave"), story.draw.pick(words.CROWDS), strict=True))
    _chain(story, steps, words.CROWD)


def _rate(story: Story, steps: int) -> None:
    """So many a day: one or two stretches, perhaps some extra, perhaps what is left of a goal."""
    draw = story.draw
    does, do, things = draw.pick(words.ACTIVITIES)
    story.fill |= {"does": does, "do": do, "t": things, "u": draw.pick(words.PERIODS)}
    days, each = draw.between(2, 9), draw.between(3, 20)
    story.say(words.RATE_FIRST, k=days, m=each)
    total = story.step("First", days, "*", each)
    goal = steps == 4 or (steps == 2 and draw.chance(0.5))
    if steps >= 3:
        more_days, other = draw.between(2, 9), draw.between(3, 20)
        story.say(words.RATE_SECOND, k=more_days, m=other)
        total = story.step("Total", total, "+", story.step("Then", more_days, "*", other))
    elif steps == 2 and not goal:
        extra = draw.between(2, 30)
        story.say(words.RATE_EXTRA, x=extra)
        total = story.step("Total", total, "+", extra)
    story.distract()
    if goal:
        wanted = total + draw.between(3, 80)
        story.say(words.RATE_GOAL, x=wanted)
        story.step("Left", wanted, "-", total)
    story.say(words.RATE_LEFT if goal else words.RATE_ASK)


def _packing(story: Story, steps: int) -> None:
    """Groups of things, some lost, the rest packed again."""
    draw = story.draw
    story.fill |= {"i": draw.pick(words.ITEMS), "shop": draw.pick(words.SHOPS)}
    size = draw.between(2, 9)
    repack = steps > 1 and draw.chance(0.6)
    if steps == 1 and draw.chance(0.5):
        value = size * draw.between(2, 20)
        story.say(words.PACK_LOOSE, x=value)
        repack = True
    else:
        groups, each = draw.between(2, 9), draw.between(3, 20)
        story.say(words.PACK_OPEN, k=groups, m=each, g=draw.pick(words.GROUPS))
        value = story.step("Total", groups, "*", each)
        if steps - repack >= 3:
            groups, each = draw.between(2, 9), draw.between(3, 12)
            story.say(words.PACK_MORE, k=groups, m=each, g=draw.pick(words.GROUPS))
            value = story.step("Total", value, "+", story.step("Added", groups, "*", each))
        if steps - repack in (2, 4):
            lost = draw.between(2, max(2, value // 2))
            # What is left must fill the bags, so the loss is what makes it so.
            lost += (value - lost) % size if repack else 0
            story.say(words.PACK_LOSS, x=lost)
            value = story.step("Left", value, "-", lost)
    if value < 2:
        raise UnfitError
    story.distract()
    story.say(words.PACK_BAGS if repack else words.PACK_ASK, x=size)
    if repack:
        story.step("Bags", value, "/", size)


def _relate(story: Story, phrases: Mapping[str, Sequence[str]], base: int, name: str, other: str, small: bool) -> int:
    """Say how `name` compares with `other`, who has `base`; return what `name` has."""
    draw = story.draw
    kind = draw.weighted({"more": 4, "fewer": 3, "times": 3, "half": 1})
    number = draw.between(2, 12 if small else 40) if kind != "times" else draw.between(2, 3 if small else 4)
    story.say(phrases[kind], n=name, n2=other, x=number, times=TIMES.get(number, ""))
    if kind == "half":
        number = 2
    value = story.step(name, base, {"more": "+", "fewer": "-", "times": "*", "half": "/"}[kind], number)
    if value < 2:
        raise UnfitError
    return value


def _compare_people(story: Story, steps: int, ages: bool) -> None:
    """Up to three people, each compared with the one before; asked for one, a sum or a later age."""
    draw = story.draw
    names = [str(story.fill["n2"]), str(story.fill["n"])]
    while len(names) < 3:
        third = draw.pick(words.PEOPLE)[0]
        names += [third] if third not in names else []
    first = draw.between(4, 20) if ages else draw.between(4, 60)
    phrases = words.AGE if ages else words.COMPARE
    story.say(words.AGE_OPEN if ages else words.COMPARE_OPEN, n=names[0], x=first)
    second = _relate(story, phrases, first, names[1], names[0], ages)
    # Two comparisons are all there are, so a third step is a sum or a later age.
    asks_sum = steps == 4 or (steps == 3 and not ages) or (steps > 1 and draw.chance(0.4))
    asks_later = ages and not asks_sum and (steps == 3 or (steps == 2 and draw.chance(0.6)))
    three = steps - asks_sum - asks_later >= 2
    third_value = _relate(story, phrases, second, names[2], names[1], ages) if three else 0
    last, value = (names[2], third_value) if three else (names[1], second)
    story.distract()
    if steps == 4:
        story.say(words.AGE_ALL if ages else words.COMPARE_ALL)
        story.step("Total", story.step("Two", first, "+", second), "+", third_value)
    elif asks_sum:
        before, amount = (names[1], second) if three else (names[0], first)
        story.say(words.AGE_SUM if ages else words.COMPARE_SUM, n=last, n2=before)
        story.step("Total", value, "+", amount)
    elif asks_later:
        years = draw.between(2, 15)
        story.say(words.AGE_LATER, n=last, x=years)
        story.step("Later", value, "+", years)
    else:
        story.say(words.AGE_ASK if ages else words.COMPARE_ASK, n=last)


def _compare(story: Story, steps: int) -> None:
    story.fill["i"] = story.draw.pick(words.ITEMS)
    _compare_people(story, steps, ages=False)


def _ages(story: Story, steps: int) -> None:
    _compare_people(story, steps, ages=True)


def _shopping(story: Story, steps: int) -> None:
    draw = story.draw
    count, price = draw.between(2, 9), draw.between(2, 20)
    story.say(words.BUY_ONE, k=count, m=price, i=draw.pick(words.ITEMS))
    bill = story.step("Cost", count, "*", price)
    if steps >= 3:
        count, price = draw.between(2, 9), draw.between(2, 15)
        story.say(words.BUY_TWO, k=count, m=price, i=draw.pick(words.ITEMS))
        bill = story.step("Total", bill, "+", story.step("Also", count, "*", price))
    change = steps in (2, 4) and draw.chance(0.5)
    if steps in (2, 4) and not change:
        coupon, amount = draw.chance(0.5), draw.between(2, 12)
        story.say(words.BUY_COUPON if coupon else words.BUY_FEE, x=amount)
        story.step("Pays", bill, "-" if coupon else "+", amount)
    story.distract()
    if change:
        paid = bill + draw.between(1, 60)
        story.say(words.BUY_PAYS, x=paid)
        story.step("Change", paid, "-", bill)
    else:
        story.say(words.BUY_ASK)


def _backwards(story: Story, steps: int) -> None:
    """The story tells the changes and what is left; the solution undoes the changes, last one first."""
    draw = story.draw
    story.fill["i"] = draw.pick(words.ITEMS)
    story.say(words.BACK_OPEN)
    value = draw.between(6, 80)
    undo: list[tuple[str, int]] = []
    for _ in range(steps):
        event = draw.weighted({"gain": 4, "lose": 5, "times": 1, "half": 1})
        number = draw.between(2, 40 if event == "gain" else max(2, min(40, value - 1)))
        if event in ("times", "half"):
            number = draw.between(2, 3) if event == "times" else 2
        where, times = draw.pick(words.WHERE), TIMES.get(number, "")
        story.say(words.THINGS[event], connect=True, x=number, where=where, times=times)
        if event == "half" and value % 2:
            raise UnfitError
        value = {"gain": value + number, "lose": value - number, "times": value * number, "half": value // 2}[event]
        undo.append(({"gain": "-", "lose": "+", "times": "/", "half": "*"}[event], number))
    if not 2 <= value <= LIMIT:
        raise UnfitError
    story.distract()
    story.say(words.BACK_NOW, x=value)
    story.say(words.BACK_ASK)
    for operator, number in reversed(undo):
        value = story.step("Before", value, operator, number)


def _average(story: Story, steps: int) -> None:
    """The mean of as many numbers as there are steps (two to four)."""
    draw = story.draw
    scores = [draw.between(2, 60) for _ in range(steps)]
    # The last score takes up the remainder, so that the mean is whole.
    scores[-1] += -sum(scores) % steps
    listed = ", ".join(map(str, scores[:-1])) + f" and {scores[-1]}"
    story.say(words.AVERAGE_OPEN, xs=listed, k=steps)
    story.distract()
    story.say(words.AVERAGE_ASK)
    total = scores[0]
    for score in scores[1:]:
        total = story.step("Sum", total, "+", score)
    story.step("Mean", total, "/", steps)


def _seats(story: Story, steps: int) -> None:
    draw = story.draw
    if steps == 1:
        seats = draw.between(20, 200)
        story.say(words.SEATS_ONE, x=seats)
    else:
        count, each = draw.between(2, 9), draw.between(10, 60)
        story.say(words.SEATS_OPEN, k=count, m=each, v=draw.pick(words.VEHICLES))
        seats = story.step("Seats", count, "*", each)
    if steps != 3:
        taken = draw.between(2, max(2, seats - 1))
        story.say(words.SEATS_TAKEN, x=taken)
        seats = story.step("Free", seats, "-", taken)
    if steps >= 3:
        teams, children = draw.between(2, 9), draw.between(2, 20)
        story.say(words.SEATS_GROUPS, k=teams, m=children)
        story.step("Free", seats, "-", story.step("Taken", teams, "*", children))
    story.distract()
    story.say(words.SEATS_ASK)


def _parts(story: Story, steps: int) -> None:
    """A half, a third, ... of a crowd is one colour; perhaps a part of the rest another."""
    draw = story.draw
    things, place = draw.pick(words.COLORED)
    color = draw.pick(words.COLORS)
    color2 = draw.pick([other for other in words.COLORS if other != color])
    story.fill |= {"i": things, "place": place}
    part, part2 = draw.between(2, 5), draw.between(2, 5)
    whole = draw.between(2, 60) * part
    story.say(words.PART_OPEN, x=whole)
    story.say(words.PART, part=words.PARTS[part], color=color)
    value = story.step(color.capitalize(), whole, "/", part)
    if steps >= 2:
        value = story.step("Rest", whole, "-", value)
    if steps >= 3:
        story.say(words.PART_REST, part=words.PARTS[part2], color=color2)
        second = story.step(color2.capitalize(), value, "/", part2)
        if steps == 4:
            story.step("Rest", value, "-", second)
    story.distract()
    asks = {1: words.PART_ASK, 2: words.PART_NOT, 3: words.PART_ASK, 4: words.PART_NEITHER}[steps]
    story.say(asks, color=color2 if steps == 3 else color, color2=color2)


def _recipe(story: Story, steps: int) -> None:
    draw = story.draw
    dish, dishes, ingredient = draw.pick(words.DISHES)
    story.fill |= {"d": dish, "ds": dishes, "i": ingredient}
    each, count, pack = draw.between(2, 12), draw.between(2, 12), draw.between(2, 9)
    story.say(words.RECIPE_ONE, m=each)
    story.say(words.RECIPE_MANY, k=count)
    value = story.step("Needed", count, "*", each)
    asks = words.RECIPE_ASK
    if steps >= 2:
        has = draw.between(2, max(2, value // 2))
        has += (value - has) % pack if steps >= 3 else 0
        story.say(words.RECIPE_HAS, x=has)
        value = story.step("Missing", value, "-", has)
        asks = words.RECIPE_BUY
    if steps >= 3:
        story.say(words.RECIPE_BOX, x=pack)
        value = story.step("Packs", value, "/", pack)
        asks = words.RECIPE_PACKS
    if steps == 4:
        price = draw.between(2, 9)
        story.say(words.RECIPE_PRICE, x=price)
        story.step("Price", value, "*", price)
        asks = words.RECIPE_COST
    story.distract()
    story.say(asks)


FAMILIES: dict[str, Callable[[Story, int], None]] = {
    "things": _things,
    "money": _money,
    "tank": _tank,
    "crowd": _crowd,
    "rate": _rate,
    "packing": _packing,
    "compare": _compare,
    "ages": _ages,
    "shopping": _shopping,
    "backwards": _backwards,
    "average": _average,
    "seats": _seats,
    "parts": _parts,
    "recipe": _recipe,
}
