"""Supervised fine-tuning on TRL's SFTTrainer.

    trainer: {use: sft, epochs: 2, batch_size: 4, learning_rate: 2e-5}

`batch_size` is what one optimizer step sees over all devices. `loss: completion` (default) trains on the target
alone, `loss: full` on prompt and target, as the published noisy-student study did. Plain text is the prompt, the
prompt's separator, the target and the end token. A chat is the prompt by the model's template, the target and the token
that ends the assistant's turn: what the model would have written itself (plugins/chat.py).

`micro_batch_size` and `gradient_checkpointing` are output-neutral: the loss is averaged over the tokens of the
whole batch whichever way it is split, so they change float rounding only (with LoRA dropout also which masks are
drawn). `group_by_length` makes batches of rows alike in length: other batches, so another result, and less time, the
more the lengths differ. Limits: the loss of one step is the mean over its tokens, so long targets weigh more than
short ones.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from nsd.plugins.api import Trainer, TrainJob, TrainResult
from nsd.plugins.chat import training_ids, turn_end
from nsd.plugins.errors import StageFailed
from nsd.plugins.registry import plugin
from nsd.plugins.trainers import _trl_fields
from nsd.plugins.trainers._options import TrlTrainerConfig, comes_out_even, trl_fields_type, unfit

_OWN = {
    "num_train_epochs": "use trainer.epochs",
    "max_steps": "use trainer.epochs, or the spec's `match: steps`",
    "gradient_accumulation_steps": "use trainer.batch_size and trainer.micro_batch_size",
    "max_length": "use trainer.max_length",
    "completion_only_loss": "use trainer.loss",
    "dataset_text_field": "nsd writes the training text",
    "dataset_kwargs": "nsd prepares the data",
    "assistant_only_loss": "use trainer.loss: completion trains on the assistant's turn alone",
    "train_sampling_strategy": "use trainer.group_by_length",
    "chat_template_path": "training and sampling use the model's own template: put another beside its weights",
}
if TYPE_CHECKING:
    TrlFields = dict[str, Any]
else:
    TrlFields = trl_fields_type("SFTConfig", _trl_fields.SFT, _OWN)


@plugin("trainer", "sft")
class Sft(Trainer):
    """Next-token cross-entropy on targets."""

    needs_targets = True
    imports = ("trl.trainer.sft_trainer",)
    extra = "train"

    class Config(TrlTrainerConfig):
        learning_rate: float = Field(default=2e-5, gt=0)
        epochs: float = Field(default=2.0, gt=0)
        batch_size: int = Field(default=4, ge=1, description="Examples per optimizer step, over all devices.")
        max_length: int | None = Field(default=1024, ge=2, description="Tokens; longer examples lose their end.")
        loss: Literal["completion", "full"] = "completion"
        group_by_length: bool = Field(
            default=False,
            description="Batches of rows alike in length, in a random order: less padding, up to half the time.",
        )
        trl: TrlFields = Field(default={}, description="Any further field of TRL's SFTConfig.")

        @model_validator(mode="after")
        def _one_way_against_padding(self) -> Sft.Config:
            packed = self.trl.get("packing")
            if self.group_by_length and packed:
                raise ValueError("packed rows are all of one length: leave out group_by_length or trl.packing")
            if packed and self.max_length is None:
                raise ValueError("trl.packing fills rows up to max_length: give it a number")
            if self.trl.get("padding_free") and not packed and self.max_length is not None:
                raise ValueError(
                    "trl.padding_free cuts no row at max_length: add max_length: null, or trl.packing: true"
                )
            return self

    config: Config

    def rows_per_step(self) -> int:
        """Examples of one optimizer step."""
        return self.config.batch_size

    def shares(self, processes: int) -> bool:
        """Whether rows and micro batches come out even."""
        return comes_out_even(self.rows_per_step(), self.config.micro_batch_size, processes)

    def unfit(self, processes: int | None, lora: bool) -> str | None:
        """FSDP needs several processes, and takes no adapter."""
        return unfit(self.config, processes, lora)

    def planned_steps(self, examples: int) -> int | None:
        """Optimizer steps for this many examples; None where packing makes it depend on their lengths."""
        if self.config.trl.get("packing"):
            return None
        return math.ceil(self.config.epochs * math.ceil(examples / self.config.batch_size))

    def train(self, job: TrainJob) -> TrainResult:
        """Run or resume; see `Trainer.train`. StageFailed where no example is left or none has a trained token."""
        if not job.examples:
            raise StageFailed("there is no example to train on: every pseudo-label was filtered out, or the split is 0")
        from nsd.plugins.trainers import _setup

        _setup.require()
        with _setup.left_as_found():
            return self._train(_setup.quiet_elsewhere(job))

    def _train(self, job: TrainJob) -> TrainResult:
        from trl import SFTConfig, SFTTrainer

        from nsd.plugins.trainers import _setup, _trl
        from nsd.plugins.trainers._order import fill_up, with_full_batches, with_length_groups
        from nsd.plugins.trainers._run import Run

        config = self.config
        micro, accumulation = _setup.split_batch(config.batch_size, config.micro_batch_size, "trainer.batch_size")
        args = _setup.arguments(
            SFTConfig,
            job,
            config,
            config.trl,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=accumulation,
            max_length=config.max_length,
            completion_only_loss=config.loss == "completion",
        )
        model, tokenizer, _ = _setup.load_start(job, args)
        _setup.warn_of_lost_updates(job, model, config.learning_rate)
        trainer_class = _trl.resumable(SFTTrainer)
        if config.group_by_length:
            trainer_class = with_length_groups(trainer_class, config.batch_size, job.seeds.order)
        with _setup.quiet_datasets():
            trainer = _setup.build(
                with_full_batches(trainer_class),
                model=model,
                args=args,
                train_dataset=dataset(job, tokenizer, config.loss),
                processing_class=tokenizer,
                peft_config=_setup.peft_config(job.lora),
            )
        lengths = self._check_lengths(trainer.train_dataset, job)
        rows, batch = len(lengths), config.batch_size
        fillers = fill_up(trainer, batch)
        state = Run(job, config, self._steps(job, lengths))
        _trl.run(trainer, state, tokenizer)
        adapter_only = _trl.save(trainer, tokenizer, job)
        steps = int(trainer.state.global_step)
        return TrainResult(
            steps=steps,
            examples_seen=examples_seen(steps, rows, batch),
            tokens_seen=_trl.tokens_seen(trainer) - steps // math.ceil(rows / batch) * fillers,
            adapter_only=adapter_only,
            notes=_trl.notes(trainer, state) | {"rows": rows, "mean_tokens": sum(lengths) / rows},
        )

    def _steps(self, job: TrainJob, lengths: list[int]) -> int:
        batch = self.config.batch_size
        if job.budget.steps is not None:
            return job.budget.steps
        tokens = job.budget.generated_tokens if job.budget.tokens is None else job.budget.tokens
        if tokens is not None:  # it generates nothing, so that what it reads is counted in their place
            return max(1, round(tokens / (sum(lengths) / len(lengths) * batch)))
        return math.ceil(self.config.epochs * math.ceil(len(lengths) / batch))

    def _check_lengths(self, prepared: Any, job: TrainJob) -> list[int]:
        """Tokens of every prepared row; warns of cut ones, fails where no row has a token in the loss."""
        from nsd.plugins.trainers._lengths import tokens_of, trained_of

        lengths, trained = tokens_of(prepared), trained_of(prepared)
        limit = self.config.max_length
        if not any(trained):
            raise StageFailed(
                f"no example has a token to train on within trainer.max_length ({limit} tokens): the prompts alone "
                "fill it; raise trainer.max_length"
            )
        cut = 0 if limit is None or self.config.trl.get("packing") else sum(length >= limit for length in lengths)
        if cut:
            empty = sum(count == 0 for count in trained)
            job.warn(
                f"{cut} of {len(lengths)} examples reach trainer.max_length ({limit} tokens) and may have lost their "
                f"end ({empty} have no token left to train on)",
                "trainer.max_length",
            )
        return lengths


def dataset(job: TrainJob, tokenizer: Any, loss: str) -> Any:
    """The examples as TRL's columns: prompt and completion, or the whole text; of a chat its token ids.

    TRL joins a plain prompt and completion without a space and adds the end token, so the separator goes in front of
    the completion, where a model that continues the bare prompt will write it. Raises StageFailed without a target.
    """
    from datasets import Dataset

    examples = job.examples
    missing = [example.question.id for example in examples if example.target is None]
    if missing:
        raise StageFailed(
            f"{len(missing)} of {len(examples)} examples have no target to imitate (first question id {missing[0]})"
        )
    given = job.prompt.chat_template_kwargs
    end = turn_end(tokenizer, given) if job.prompt.chat else None
    rows: list[dict[str, Any]] = []
    for example in examples:
        if not isinstance(example.prompt, str):
            ids, prompt = training_ids(tokenizer, example.prompt, str(example.target), end, given)
            mask = [0] * prompt + [1] * (len(ids) - prompt)
            rows.append({"input_ids": ids, **({"completion_mask": mask} if loss == "completion" else {})})
            continue
        completion = job.prompt.separator + str(example.target)
        if loss == "completion":
            rows.append({"prompt": example.prompt, "completion": completion})
        else:
            rows.append({"text": example.prompt + completion})
    return Dataset.from_list(rows)


def examples_seen(steps: int, rows: int, batch: int) -> int:
    """Rows that `steps` optimizer steps went over; the last batch of an epoch may be smaller."""
    per_epoch = math.ceil(rows / batch)
    return steps // per_epoch * rows + min(steps % per_epoch * batch, rows)
