"""A small results database for tests, with the real schema: arms are added run by run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import count
from typing import Any

import duckdb
import pytest

from nsd.plugins.errors import InputError
from nsd.reports.judge.compare import compare_runs
from nsd.reports.judge.hypotheses import ClaimVerdict, Rules, judge_family, weigh_claim
from nsd.reports.judge.runs import condition_arms
from nsd.reports.judge.values import load_values
from nsd.runner.store.filling import SCHEMA_SQL
from nsd.runner.store.shapes import Claim


@cache
def _duckdb() -> duckdb.DuckDBPyConnection:
    return duckdb.connect()


def _another_database() -> duckdb.DuckDBPyConnection:
    """Give a database of its own in the one instance of this process: starting an instance takes twice as long."""
    connection, name = _duckdb().cursor(), f"toy{next(_NUMBERS)}"
    connection.execute(f"ATTACH ':memory:' AS {name}")
    connection.execute(f"USE {name}")
    return connection


_NUMBERS = count()


class Results:
    """`results.connection` is what the functions under test take."""

    def __init__(self) -> None:
        self.connection = _another_database()
        self.connection.execute(SCHEMA_SQL)

    def add(
        self,
        run: str,
        values: Mapping[str, float] | Sequence[float] | None,
        *,
        samples: int = 1,
        metric: str = "accuracy",
        data: str | None = "data",
        verifier: str | None = "numeric",
        truncated: Sequence[str] = (),
        label: str | None = None,
        order: str | None = None,
        status: str = "done",
        trained: bool = True,
        temperature: float | None = None,
        engine: str = "hf",
    ) -> str:
        """Add a run `experiment/condition/seedN` (or any name: an import). Plain lists get question ids q0, q1, ...

        Each run of an experiment has weights of its own unless it is not `trained`; `temperature` writes the manifest
        of its evaluation, with an `engine` that loads weights if it is `hf`.
        """
        experiment, condition, seed, spec = None, run, None, None
        if run.count("/") == 2 and "/seed" in run:
            experiment, condition, number = run.split("/")
            seed, spec = int(number.removeprefix("seed")), "spec"
        execute = self.connection.execute
        train = f"train-{run}" if trained and experiment is not None else None
        execute(
            "INSERT INTO runs VALUES (?,?,?,?,?,?,?,?,?,NULL,NULL,NULL,NULL,NULL,false)",
            [run, experiment, condition, seed, spec, f"eval-{run}", train, label, status],
        )
        if order is not None:
            manifest = f'{{"key": {{"train_on": "{order}", "seeds": {{"order": {seed}}}}}}}'
            execute("INSERT INTO stages(digest, kind, manifest) VALUES (?, 'train', ?)", [train, manifest])
        if temperature is not None:
            key = {"sampling": {"temperature": temperature}, "engine": {"use": engine}, "model": {"base": "m"}}
            key = {**key, "model": None} if engine != "hf" else key
            execute(
                "INSERT INTO stages(digest, kind, manifest) VALUES (?, 'eval', ?)",
                [f"eval-{run}", json.dumps({"key": key})],
            )
        if values is None:
            return run
        if not isinstance(values, Mapping):
            values = {f"q{i}": value for i, value in enumerate(values)}
        execute(
            "INSERT INTO eval_info VALUES (?,?,?,?,?,?,?)",
            [f"eval-{run}", metric, "accuracy", data, verifier, len(values), samples],
        )
        questions, numbers = list(values), [float(value) for value in values.values()]
        reasons = ["length" if question in truncated else "stop" for question in questions]
        execute("INSERT INTO eval_values SELECT ?, unnest(?), unnest(?)", [f"eval-{run}", questions, numbers])
        execute(
            "INSERT INTO eval_samples SELECT ?, unnest(?), 0, unnest(?), unnest(?), '1', unnest(?), 9",
            [f"eval-{run}", questions, numbers, [number == 1 for number in numbers], reasons],
        )
        return run

    def add_counts(self, run: str, correct: int, n: int) -> str:
        """Add an imported row of counts."""
        self.connection.execute("INSERT INTO runs(run, condition, status) VALUES (?, ?, 'imported')", [run, run])
        self.connection.execute("INSERT INTO counts VALUES (?,?,?)", [run, correct, n])
        return run

    def add_labels(self, digest: str, rows: Sequence[tuple[str | None, float, bool, bool | None]]) -> str:
        """Add pseudo-labels as (label, confidence, kept, correct)."""
        for i, (label, confidence, kept, correct) in enumerate(rows):
            self.connection.execute(
                "INSERT INTO labels VALUES (?,?,?,?,?,8,?,?)",
                [digest, f"u{i}", label, confidence, round(8 * confidence), kept, correct],
            )
        return digest


def table_runs(results: Results, a: str, b: str, both: int, a_only: int, b_only: int, neither: int) -> None:
    """Add two runs whose answers fill a paired two-by-two table."""
    results.add(a, [1.0] * (both + a_only) + [0.0] * (b_only + neither))
    results.add(b, [1.0] * both + [0.0] * a_only + [1.0] * b_only + [0.0] * neither)


def verdicts(results: Results, block: Mapping[str, Any], experiment: str = "s") -> list[ClaimVerdict]:
    """The claims of a spec's hypotheses block as one family, all declared in time."""
    alpha, correction = block["alpha"], block["correction"]
    arms = condition_arms(results.connection, experiment)
    values = load_values(results.connection, list(arms.values()))
    tested = [weigh_claim(Claim(**claim), arms, values, alpha) for claim in block["claims"]]
    found = judge_family(tested, [], values, Rules(alpha, correction, len(tested)))
    return [one for one in found if one is not None]


def refusal(results: Results, *runs: str, **asked: Any) -> str:
    """Why these runs are not compared in the way that is asked for."""
    with pytest.raises(InputError) as caught:
        compare_runs(results.connection, list(runs), **asked)
    assert caught.value.exit_code == 2
    return str(caught.value)
