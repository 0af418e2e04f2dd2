"""How far the searches of an experiment came: which questions each arm solved, after how many samples, and the curves.

    found = collect_searches(connection, runs)
    found.arms[0].curve          # share of questions solved within n samples, with intervals
    found.questions              # a row for each question, a cell for each arm

A curve is of one run: searches of a question under several seeds are no further questions, so each seed has its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nsd.reports import stats
from nsd.reports.judge.metrics import SEARCH

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class SearchCell:
    """One search: the number of the first right sample where it is `solved`, else how many were drawn."""

    solved: bool
    samples: int

    @property
    def text(self) -> str:
        """The number; of an unsolved question "> number"."""
        return str(self.samples) if self.solved else f"> {self.samples}"


@dataclass(frozen=True)
class SearchedArm:
    """The searches of one run, by question id. `budget` is how many samples a question may have.

    The curve has a point where it rises and at the powers of four; between two it is level.
    """

    condition: str
    seed: int | None
    budget: int
    cells: dict[str, SearchCell]
    curve: list[stats.CurvePoint]

    @property
    def solved(self) -> int:
        """Questions solved."""
        return sum(cell.solved for cell in self.cells.values())

    def within(self, samples: int) -> stats.CurvePoint:
        """The curve's last point at or before so many samples."""
        return next(point for point in reversed(self.curve) if point.samples <= samples)


@dataclass(frozen=True)
class Searches:
    """`arms` in the order of the runs; `questions` are ids, those solved most often and soonest first."""

    arms: list[SearchedArm]
    questions: list[str]

    @property
    def marks(self) -> list[int]:
        """Numbers of samples to read the curves at."""
        return _marks(max((arm.budget for arm in self.arms), default=0))

    @property
    def several(self) -> bool:
        """Whether any condition has more than one run."""
        return len({arm.condition for arm in self.arms}) < len(self.arms)

    def name(self, arm: SearchedArm) -> str:
        """The condition, with its seed where there are several."""
        return f"{arm.condition}, seed {arm.seed}" if self.several else arm.condition


def collect_searches(
    connection: duckdb.DuckDBPyConnection, runs: Sequence[str], level: float = stats.LEVEL
) -> Searches:
    """The searches among the named runs; without an arm where none was evaluated by a search."""
    found = connection.execute(
        "SELECT run, condition, seed, eval_digest, samples FROM current_runs JOIN eval_info USING (eval_digest) "
        "WHERE run IN (SELECT unnest(?::TEXT[])) AND starts_with(metric, ?)",
        [list(runs), SEARCH],
    ).fetchall()
    cells: dict[str, dict[str, SearchCell]] = {}
    for digest, question, first, drawn in connection.execute(
        "SELECT eval_digest, question_id, min(sample) FILTER (WHERE correct AND stop_reason IS DISTINCT FROM 'error'), "
        "count(*) FROM eval_samples WHERE eval_digest IN (SELECT unnest(?::TEXT[])) GROUP BY 1, 2 ORDER BY 2",
        [[row[3] for row in found]],
    ).fetchall():
        cell = SearchCell(False, int(drawn)) if first is None else SearchCell(True, int(first) + 1)
        cells.setdefault(digest, {})[question] = cell
    by_run = {row[0]: row for row in found}
    arms = []
    for run in runs:
        if run in by_run and by_run[run][3] in cells:
            _, condition, seed, digest, budget = by_run[run]
            mine = cells[digest]
            curve = stats.discovery_curve(
                [cell.samples for cell in mine.values()],
                [cell.solved for cell in mine.values()],
                sorted({*_marks(int(budget)), *(cell.samples for cell in mine.values() if cell.solved)}),
                level,
            )
            arms.append(SearchedArm(str(condition or run), seed, int(budget), mine, curve))
    return Searches(arms, _ordered(arms))


def _marks(budget: int) -> list[int]:
    """The powers of four below a budget, and the budget."""
    return [*(4**power for power in range(20) if 4**power < budget), budget] if budget else []


def _ordered(arms: Sequence[SearchedArm]) -> list[str]:
    spent: dict[str, tuple[int, int]] = {}
    for arm in arms:
        for question, cell in arm.cells.items():
            unsolved, samples = spent.get(question, (0, 0))
            spent[question] = (unsolved + (not cell.solved), samples + cell.samples)
    return sorted(spent, key=lambda one: (spent[one], one))
