"""How durations, shares and suggestions are said, everywhere the same.

duration(185)                                        # "3 min 05 s"
percent(None)                                        # "-"
did_you_mean("studnt", names)                        # "did you mean 'student'?"
hint("studnt", names, "; `nsd runs` lists them")     # "; did you mean 'student'?"
"""

from __future__ import annotations

from collections.abc import Iterable

CORRECTIONS = {"holm": "Holm", "bonferroni": "Bonferroni", "bh": "Benjamini-Hochberg", "none": "no correction"}
SEEDS_AT_ANY_LOOK = 3  # training seeds of each trained arm from which a recipe has a verdict under `looks: any`


# What plans and reports say of an arm that saw the questions it is measured on.
ON_TEST_QUESTIONS = "trained on the test questions without answers"
AFTER_TEST_QUESTIONS = f"started from, or labelled by, a model that was {ON_TEST_QUESTIONS}"
# Of one that looks for solutions of the questions it is measured on by training.
ON_VERDICTS = "trained on the test questions with the verifier's verdicts, on each alone"
# And of one whose training ended by the clock.
BUDGET_OF_SECONDS = "trained for a number of seconds, so another machine, or another run, takes other steps"


def duration(seconds: float) -> str:
    """Seconds as `4.2 s`, `42 s`, `3 min 05 s` or `2 h 10 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if 0 < seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def percent(share: float | None) -> str:
    """A share in percent, a dash where there is none."""
    return "-" if share is None else f"{share:.1%}"


def nearest(word: str, choices: Iterable[str], most: int = 1, cutoff: float = 0.6) -> list[str]:
    """Up to `most` choices that are like `word`, the likest first, upper and lower case alike."""
    import difflib

    by_lower = {choice.lower(): choice for choice in choices}
    return [by_lower[one] for one in difflib.get_close_matches(word.lower()[:100], by_lower, most, cutoff)]


def did_you_mean(word: str, choices: Iterable[str], most: int = 1, cutoff: float = 0.6) -> str:
    """What to say about an unknown name: the choices that are near, "" where none is."""
    near = nearest(word, choices, most, cutoff)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else ""


def hint(word: str, choices: Iterable[str], otherwise: str = "", most: int = 1) -> str:
    """The end of an error about an unknown name: what was meant, else `otherwise`."""
    meant = did_you_mean(word, choices, most)
    return f"; {meant}" if meant else otherwise
