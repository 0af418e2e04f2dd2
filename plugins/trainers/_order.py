"""In which order a training asks its questions: its own seed's, the same after a resume, the same for every trainer."""

from __future__ import annotations

from typing import Any


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

    class Ordered(base):  # type: ignore[misc]  # a class of TRL's, which has no types
        def _get_train_sampler(self, dataset: Any = None) -> Any:
            self._order = EpochSampler(
                data_source=self.train_dataset if dataset is None else dataset,
                mini_repeat_count=self.num_generations,
                batch_size=self.args.generation_batch_size // self.num_generations,
                repeat_count=self.num_iterations * self.args.steps_per_generation,
                shuffle=self.shuffle_dataset,
                seed=seed,
            )
            return self._order

        def _init_training_state(self, *args: Any, **kwargs: Any) -> Any:
            epochs_trained, steps = super()._init_training_state(*args, **kwargs)
            self._order.finished_epochs = epochs_trained
            return epochs_trained, steps

    Ordered.__name__ = base.__name__
    return Ordered
