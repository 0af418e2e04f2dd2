"""What a worker does before a stage that trains: it makes room for it, and imports what it computes with."""

from __future__ import annotations

import contextlib
import gc
import importlib
import sys
from collections.abc import Iterable

from nsd.plugins.api import Trainer
from nsd.runner.plan.jobs import StageJob, ToDiscover, ToTrain
from nsd.runner.work.context import Context
from nsd.runner.work.jobs import make_plugin


def collect_seldom() -> None:
    """Have the garbage collector look at everything seldom.

    Importing what computes sets off five full collections, which find nothing and take half a second. Where memory is
    to be given back, as after a training, they are asked for.
    """
    gc.set_threshold(*gc.get_threshold()[:2], 1000)


def import_for_good(names: Iterable[str]) -> None:
    """Import modules, and have the garbage collector leave out what they made, if any of them was new.

    Every training asks for full collections (accelerate, to give memory back), and each would go over the million
    objects of torch, transformers and TRL. Call it where nothing that can end is at work: all that lives is left out,
    and a closure's cell that is given a model later would keep it for as long as the process lives.
    """
    missing = [name for name in names if name not in sys.modules]
    for name in missing:
        with contextlib.suppress(ImportError):  # who needs it says what is missing, and how to get it
            importlib.import_module(name)
    if missing:
        gc.freeze()


def before_training(work: StageJob, context: Context) -> None:
    """Close what draws and import what trains, where a stage trains. Called before a frame of the stage is live."""
    if not isinstance(work, ToTrain | ToDiscover) or work.trainer is None:
        return
    for engine in context.engines.values():  # training wants the memory that the last generation's model holds
        engine.close()
    context.team.retire()
    import_for_good(make_plugin(work.trainer, Trainer).imports)
