"""An engine asked for what a stage wants of some questions, batch by batch, whoever keeps the batches.

for batch in drawn(work, questions, ref, engine, others, held): ...
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from nsd.plugins.api import Completion, Engine, ModelRef, Question, Request
from nsd.runner.plan.jobs import ToSample
from nsd.runner.work.rounds import Place, Wanted


def drawn(
    work: ToSample,
    questions: Sequence[Question],
    ref: ModelRef | None,
    engine: Callable[[], Engine],
    others: Mapping[Place, Completion],
    held: dict[Place, Completion],
) -> Iterator[list[Completion]]:
    """Batches of what is wanted and not in `held`, to which each is added once it has been taken.

    `others` is what was there before the stage began. Where nothing is missing, `engine` is not called.
    """
    given = work.prompt.chat_template_kwargs
    wanted = Wanted.of_stage(work)
    if work.asking is not None and wanted.lacks(questions, held) and engine().grows:
        asked = [Request(one.id, work.prompt.render(one), 0, given) for one in questions if wanted.lacks([one], held)]
        growing = wanted.growing(questions, held)
        for batch in engine().generate_growing(ref, asked, work.sampling, work.seed, growing):
            yield batch
            held |= {(item.question_id, item.sample): item for item in batch}
        return
    for waiting, upto in wanted.rounds(questions, held):
        # In the only round the batches of a resumed stage are cut as at first: its own shards are `done`, no `first`.
        there = others if work.asking is None else held
        asked = [Request(one.id, work.prompt.render(one), first(one.id, there), given) for one in waiting]
        requests = [request for request in asked if request.first < upto]
        sampling = replace(work.sampling, n=upto)
        for batch in engine().generate(ref, requests, sampling, work.seed, frozenset(held)):
            yield batch
            held |= {(item.question_id, item.sample): item for item in batch}


def first(question_id: str, others: Mapping[Place, Completion]) -> int:
    """The first sample of a question that is not there."""
    return next(sample for sample in itertools.count() if (question_id, sample) not in others)
