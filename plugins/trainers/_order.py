"""In which order a training sees its rows: its own seed's, the same after a resume, the same for every trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

from nsd.plugins.seeds import stream
from nsd.plugins.trainers._lengths import tokens_of

POOL = 50  # batches whose rows are sorted by length together


def with_resumable_order(base: Any, seed: int) -> Any:
    """A trainer of groups of rollouts whose order of questions comes from `seed` and is the same after a resume.

    TRL's sampler draws each epoch's permutation from one generator, which starts again at the first permutation
    when a run is resumed in a later epoch. Here the permutations of the epochs before are drawn and thrown away.
    The trainer has `num_generations`, `num_iterations` and `shuffle_dataset`, as TRL's.
    """
    from trl.trainer.utils import RepeatSampler

    class EpochSampler(RepeatSampler):  # type: ignore[misc]  # TRL has no types
        finished_epochs = 0

        def __iter__(self) -> Any:
            import torch

            if self.shuffle:
                self.generator.manual_seed(seed)
                for _ in range(self.finished_epochs):
                    torch.randperm(self.num_samples, generator=self.generator)
            self.finished_epochs += 1
            return super().__iter__()

    def sampler(trainer: Any, rows: Any, _: Any) -> EpochSampler:
        return EpochSampler(
            data_source=rows,
            mini_repeat_count=trainer.num_generations,
            batch_size=trainer.args.generation_batch_size // trainer.num_generations,
            repeat_count=trainer.num_iterations * trainer.args.steps_per_generation,
            shuffle=trainer.shuffle_dataset,
            seed=seed,
        )

    return _ordered(base, sampler)


def with_length_groups(base: Any, batch: int, seed: int) -> Any:
    """A trainer whose batches, of all devices together, hold rows of much the same length; these have `input_ids`."""
    return _ordered(base, lambda _, rows, __: LengthSampler(tokens_of(rows), batch, seed))


def with_full_batches(base: Any) -> Any:
    """A trainer that can be given rows which fill an epoch's last batch, by `fill_up`: they come last in every epoch.

    Several processes take equal shares of a batch. Where the rows leave a smaller one, accelerate completes it with
    rows from the beginning of the epoch, which would then be trained on twice.
    """

    def sampler(trainer: Any, rows: Any, usual: Callable[[Any], Any]) -> Any:
        fillers = getattr(trainer, "fillers", 0)
        if not fillers:
            return usual(rows)
        from accelerate.data_loader import SeedableRandomSampler
        from torch.utils.data import RandomSampler

        real = len(rows) - fillers
        order = usual(rows.select(range(real)))
        if isinstance(order, RandomSampler):  # what accelerate would put in its place, were it the whole order
            order = SeedableRandomSampler(data_source=order.data_source, data_seed=trainer.args.data_seed)
        return ThenFillers(order, range(real, len(rows)))

    return _ordered(base, sampler)


class ThenFillers:
    """The places of an epoch's rows, then those of the rows that fill its last batch."""

    def __init__(self, order: Any, fillers: Sequence[int]) -> None:
        self.order, self.fillers = order, fillers
        self.finished_epochs = 0

    def __len__(self) -> int:
        return len(self.order) + len(self.fillers)

    def __iter__(self) -> Iterator[int]:
        # By either name an order knows which epoch it is: accelerate's by the first, those here by the second.
        self.order.epoch = self.order.finished_epochs = self.finished_epochs
        self.finished_epochs += 1
        yield from self.order
        yield from self.fillers


def fill_up(trainer: Any, batch: int) -> int:
    """Give a trainer `with_full_batches` the rows that its last batch lacks; how many, 0 for a single process.

    A filler is one token and nothing in the loss, whose mean is over the trained tokens of all processes.
    """
    from datasets import Dataset, concatenate_datasets

    rows = trainer.train_dataset
    count = 0 if trainer.accelerator.num_processes == 1 else -len(rows) % batch
    if count:
        filler = {"input_ids": rows[0]["input_ids"][:1], "labels": [-100], "seq_lengths": [1]}
        filler = {name: value for name, value in filler.items() if name in rows.column_names}  # no other is looked at
        rows = rows.select_columns(list(filler))
        fillers = Dataset.from_list([filler] * count, features=rows.features)
        trainer.train_dataset, trainer.fillers = concatenate_datasets([rows, fillers]), count
    return count


class LengthSampler:
    """The rows' places of one epoch after the other, by `grouped_by_length`."""

    def __init__(self, lengths: Sequence[int], batch: int, seed: int) -> None:
        self.lengths, self.batch, self.seed = lengths, batch, seed
        self.finished_epochs = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        seed = stream(self.seed, "length groups", self.finished_epochs)
        self.finished_epochs += 1
        return iter(grouped_by_length(self.lengths, self.batch, seed))


def grouped_by_length(lengths: Sequence[int], batch: int, seed: int) -> list[int]:
    """Places of the rows in the order of one epoch: each once, cut into batches of `batch` of similar length.

    Rows are shuffled, sorted by length within pools of POOL batches, cut, and the batches shuffled, so that long ones
    come as early as short ones (transformers' group_by_length goes from long to short within a pool). Where the rows
    leave a smaller batch it has any of them and comes last, as in every other order.
    """
    random = Random(seed)
    order = list(range(len(lengths)))
    random.shuffle(order)
    rest, size = len(order) % batch, POOL * batch
    order, short = order[: len(order) - rest], order[len(order) - rest :]
    pools = [sorted(order[start : start + size], key=lengths.__getitem__) for start in range(0, len(order), size)]
    batches = [pool[start : start + batch] for pool in pools for start in range(0, len(pool), batch)]
    random.shuffle(batches)
    return [place for one in batches for place in one] + short


def _ordered(base: Any, sampler: Callable[[Any, Any, Callable[[Any], Any]], Any]) -> Any:
    """A trainer with this sampler of its rows, which is told how many epochs were over before a resume.

    The sampler is made of the trainer, the rows, and what the base would take for some rows.
    """

    class Ordered(base):  # type: ignore[misc]  # a class of TRL's, which has no types
        def _get_train_sampler(self, dataset: Any = None) -> Any:
            rows = self.train_dataset if dataset is None else dataset
            self._order = sampler(self, rows, super()._get_train_sampler)
            return self._order

        def _init_training_state(self, *args: Any, **kwargs: Any) -> Any:
            epochs_trained, steps = super()._init_training_state(*args, **kwargs)
            self._order.finished_epochs = epochs_trained
            return epochs_trained, steps

    Ordered.__name__ = base.__name__
    return Ordered
