"""Completions of a stage drawn in blocks of questions by Ray's actors, each with an engine of its own.

What an actor is given are the questions and what is there of them; it asks its engine as one process does, a labeler
between rounds included. So texts are those of one process: they follow from seed, question and sample alone.

Limits: rows of a block do not stand beside those of the next, so an engine's batch runs empty at each block's end; a
block has up to BLOCK_ROWS completions for that reason.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nsd.plugins.api import Completion, Engine, ModelRef, Question
from nsd.plugins.errors import InputError, NsdError, StageFailed
from nsd.runner.plan.jobs import ToSample
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.drawn import drawn
from nsd.runner.work.jobs import make_plugin
from nsd.runner.work.rounds import Place, Wanted

BLOCK_ROWS = 2048
BLOCKS_EACH = 4  # at least, where there are so many questions: the last ones end at about the same time
WAIT_SECONDS = 1800.0  # for a model that another machine trained, and that is on its way


@dataclass(frozen=True)
class QuestionBlock:
    """Questions, what other stages drew of them, and all that is there of them."""

    questions: tuple[Question, ...]
    others: Mapping[Place, Completion]
    held: Mapping[Place, Completion]


@dataclass(frozen=True)
class DrawnBlock:
    """What was drawn of a block, before something went wrong where `trouble` says what."""

    completions: tuple[Completion, ...]
    trouble: str | None = None
    refused: bool = False  # the trouble is with what was given

    def check(self) -> None:
        """Raise InputError or StageFailed where something went wrong."""
        if self.trouble is not None:
            raise InputError(self.trouble) if self.refused else StageFailed(self.trouble)


class Drawer:
    """The work of one actor: its engine, which keeps the model from block to block."""

    def __init__(self, work: ToSample, ref: ModelRef | None, workspace: str) -> None:
        self._work, self._ref = work, ref
        if work.model is not None and work.model.train is not None:
            _wait_for_model(Workspace(Path(workspace)), work.model.train)
        self._engine: Engine | None = None

    def do(self, block: QuestionBlock) -> DrawnBlock:
        """Draw what is missing of a block."""
        found: list[Completion] = []
        held = dict(block.held)
        try:
            for batch in drawn(self._work, block.questions, self._ref, self._asked, block.others, held):
                found += batch
        except NsdError as error:
            return DrawnBlock(tuple(found), str(error), isinstance(error, InputError))
        except Exception as error:
            traceback.print_exc()
            return DrawnBlock(tuple(found), f"{type(error).__name__}: {error}")
        return DrawnBlock(tuple(found))

    def _asked(self) -> Engine:
        if self._engine is None:
            self._engine = make_plugin(self._work.engine, Engine)
        return self._engine


def _wait_for_model(workspace: Workspace, digest: str) -> None:
    """On a machine of its own the model comes through the store."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not workspace.has_weights(digest):
        if time.monotonic() > deadline:
            raise StageFailed(
                f"the model of the training {digest[:12]} did not come to {workspace.root} on this machine"
            )
        time.sleep(1.0)


def in_blocks(
    work: ToSample,
    questions: Sequence[Question],
    others: Mapping[Place, Completion],
    held: Mapping[Place, Completion],
    actors: int,
) -> list[QuestionBlock]:
    """The questions in blocks, without the blocks of which nothing is missing."""
    wanted = Wanted.of_stage(work)
    each = max(1, min(math.ceil(len(questions) / (BLOCKS_EACH * actors)), BLOCK_ROWS // work.sampling.n))
    blocks = []
    for start in range(0, len(questions), each):
        part = tuple(questions[start : start + each])
        places = [(one.id, sample) for one in part for sample in range(work.sampling.n)]
        there = {place: held[place] for place in places if place in held}
        if wanted.lacks(part, there):
            blocks.append(QuestionBlock(part, {place: others[place] for place in places if place in others}, there))
    return blocks
