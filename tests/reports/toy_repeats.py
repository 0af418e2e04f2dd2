"""A run that was evaluated again."""

from __future__ import annotations

from collections.abc import Sequence

from toy_results import Results

RUN = "toy/base/seed1"


def with_repeats(
    original: Sequence[float],
    *repeats: Sequence[float] | None,
    results: Results | None = None,
    run: str = RUN,
    temperature: float | None = None,
    metric: str = "accuracy",
) -> Results:
    """A run and its repeats; None for a repeat that is not finished."""
    results = results or Results()
    results.add(run, original, metric=metric)
    for number, values in enumerate(repeats, 1):
        digest = f"{run}-again{number}"
        results.connection.execute("INSERT INTO repeats VALUES (?,'spec',?,?)", [run, number, digest])
        if values is not None:
            info = [digest, metric, "accuracy", "data", "numeric", len(values), 1]
            results.connection.execute("INSERT INTO eval_info VALUES (?,?,?,?,?,?,?)", info)
            for i, value in enumerate(values):
                results.connection.execute("INSERT INTO eval_values VALUES (?,?,?)", [digest, f"q{i}", value])
    if temperature is not None:
        manifest = f'{{"key": {{"sampling": {{"temperature": {temperature}}}, "engine": {{"use": "hf"}}}}}}'
        results.connection.execute(
            "INSERT INTO stages(digest, kind, manifest) VALUES (?, 'eval', ?)", [f"eval-{run}", manifest]
        )
    return results
