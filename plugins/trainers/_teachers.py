"""Models beside the one that learns: the start it is compared with, and the teachers of self-distillation.

All of them are made of the start model in memory, never loaded from a path again, so that a student that differs from
the files has its own teacher. With LoRA the start is the model without its adapters; an average is of the weights in
force (base plus adapter), not of an adapter's two factors, whose product would be another average.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from nsd.plugins.errors import StageFailed
from nsd.plugins.trainers._rollouts import bare, evaluating
from nsd.plugins.trainers.losses import Head, Teacher, ema_update

if TYPE_CHECKING:
    from torch import Tensor

    from nsd.plugins.trainers._algorithm import Loop, Micro, Sampled

Kind = Literal["current", "frozen", "ema", "trust_region"]


def head_of(model: Any) -> Head:
    """The last layer. Raises StageFailed for a model that does more with its hidden states than multiply them."""
    import torch

    layer, config = bare(model).get_output_embeddings(), bare(model).config.get_text_config()
    more = [
        name
        for name in (
            "final_logit_softcapping",
            "logit_scale",
            "output_multiplier",
            "lm_head_multiplier",
            "logits_scaling",
        )
        if getattr(config, name, None) not in (None, 1, 1.0)
    ]
    kind = f"{type(layer).__module__}.{type(layer).__name__}"
    if more or type(layer) is not torch.nn.Linear:  # an adapter's layer has the same name
        raise StageFailed(
            f"self-distillation compares hidden states times the last layer, and {type(bare(model)).__name__} does "
            f"more ({', '.join(more) or kind}): take another model, or a LoRA that leaves lm_head out"
        )
    return Head(layer.weight, layer.bias)


def copied(model: Any) -> Any:
    """A frozen copy of a model in memory, with its adapters merged, prepared as the original is.

    Raises StageFailed where merging would change more than the adapters do: what is added to an embedding that the
    last layer shares would be added to that layer too.
    """
    import torch

    inner = getattr(model, "module", model)
    if hasattr(inner, "peft_config") and bare(inner).config.get_text_config().tie_word_embeddings:
        embedding = bare(inner).get_input_embeddings()
        if type(embedding) is not torch.nn.Embedding:
            raise StageFailed(
                "a moving average merges the adapter, and the embedding that model.lora adapts is the last layer's "
                "too: leave embed_tokens out of model.lora.targets, or choose another teacher"
            )
    patched = bare(inner).__dict__.pop("forward", None)  # a bound method of the original
    try:
        twin = copy.deepcopy(inner)
    finally:
        if patched is not None:
            bare(inner).forward = patched
    if hasattr(twin, "peft_config"):
        twin = twin.merge_and_unload()
    twin.requires_grad_(False)
    twin.eval()
    assert isinstance(twin, torch.nn.Module)
    return twin


class Reference:
    """The model as it was at the start of the training."""

    def __init__(self, loop: Loop) -> None:
        from nsd.plugins.trainers._forward import prepared

        self.adapted = hasattr(loop.model, "peft_config")
        self._copy = None if self.adapted else prepared(copied(loop.model), loop.config.temperature)

    @contextlib.contextmanager
    def model(self, loop: Loop) -> Iterator[Any]:
        """The start model, for passes without gradient."""
        if self._copy is not None:
            yield self._copy
            return
        model = loop.accelerator.unwrap_model(loop.model)
        with model.disable_adapter():
            yield model

    def logprobs(self, loop: Loop, sampled: Sampled) -> Tensor:
        """[R, T], of the sampled tokens."""
        with self.model(loop) as model:
            found: Tensor = loop.logprobs(model, sampled)
        return found


class Teachers:
    """A teacher of the kind that a config names.

    `current` is the model as it is now, `frozen` the start, `ema` a moving average of the weights in force, moved by
    `rate` after each sampled batch, `trust_region` the start's logits lerped by `rate` towards the current ones'.
    """

    def __init__(self, loop: Loop, kind: Kind, rate: float) -> None:
        from nsd.plugins.trainers._forward import prepared

        head_of(loop.model)  # says at once where a model cannot have one
        self.kind, self.rate = kind, rate
        self.reference = Reference(loop) if kind in ("frozen", "trust_region") else None
        self.average = prepared(copied(loop.model), loop.config.temperature) if kind == "ema" else None
        # A small step towards the student would be rounded away in half precision, time and again.
        self._precise = {
            name: value.detach().float()
            for name, value in (() if self.average is None else self.average.named_parameters())
            if value.dtype.itemsize < 4
        }

    def of(self, loop: Loop, micro: Micro) -> Teacher:
        """The teacher's hidden states of the completion's tokens, after what it was given to read."""
        current = loop.accelerator.unwrap_model(loop.model)
        if self.average is not None:
            return self._seen(loop, self.average, micro)
        if self.reference is None:
            return self._seen(loop, current, micro)
        with self.reference.model(loop) as model:
            start = self._seen(loop, model, micro)
        if self.kind == "frozen":
            return start
        return Teacher(start.hidden, start.head, self._seen(loop, current, micro), self.rate)

    def logprobs(self, loop: Loop, micro: Micro) -> Tensor:
        """[R, T]: the teacher's log-probabilities of the sampled tokens. Not for the trust region, which has logits."""
        import torch

        from nsd.plugins.trainers._forward import forward

        if self.average is not None:
            context: Any = contextlib.nullcontext(self.average)
        elif self.reference is not None:
            context = self.reference.model(loop)
        else:
            context = contextlib.nullcontext(loop.accelerator.unwrap_model(loop.model))
        with context as model, torch.no_grad(), loop.accelerator.autocast(), evaluating(model):
            found: Tensor = forward(
                model, micro.columns["teacher_ids"], micro.columns["teacher_attention"], micro.mask.shape[1], True
            ).logp
        return found

    @staticmethod
    def _seen(loop: Loop, model: Any, micro: Micro) -> Teacher:
        import torch

        ids, attention = micro.columns["teacher_ids"], micro.columns["teacher_attention"]
        with torch.no_grad(), evaluating(model):
            (hidden,) = loop.hidden(model, ids, attention, micro.mask, len(ids))
        return Teacher(hidden, head_of(model))

    def move(self, loop: Loop) -> None:
        """Move the average towards the weights in force."""
        import torch

        if self.average is not None:
            mine = dict(self.average.named_parameters())
            with torch.no_grad():
                # One after another: with an adapter each is made for the occasion.
                for name, theirs in in_force(loop.accelerator.unwrap_model(loop.model)):
                    held = self._precise.get(name, mine[name])
                    ema_update([held], [theirs], self.rate)
                    mine.pop(name).copy_(held)
            assert not mine, f"nothing to average with {sorted(mine)}"

    def state(self) -> dict[str, Tensor]:
        """The average, in float32 at least."""
        if self.average is None:
            return {}
        return {f"teacher.{name}": self._precise.get(name, value) for name, value in self.average.named_parameters()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""
        import torch

        if self.average is not None:
            with torch.no_grad():
                for name, value in self.average.named_parameters():
                    self._precise.get(name, value).copy_(state[f"teacher.{name}"])
                    value.copy_(state[f"teacher.{name}"])


def in_force(model: Any) -> Iterator[tuple[str, Tensor]]:
    """The weights that a model computes with, by their names without adapters: base plus adapter where there is one."""
    if not hasattr(model, "peft_config"):
        yield from model.named_parameters()
        return
    from peft.tuners.lora import LoraLayer

    base = model.get_base_model()
    layers = {name: layer for name, layer in base.named_modules() if isinstance(layer, LoraLayer)}
    for name, value in base.named_parameters():
        if ".lora_" in name:
            continue
        owner, _, last = name.rpartition(".base_layer.")
        if not owner:
            yield name, value
        elif last == "weight":
            layer = layers[owner]
            deltas = [layer.get_delta_weight(adapter) for adapter in layer.active_adapters]
            yield f"{owner}.weight", value + sum(deltas)
        else:
            yield f"{owner}.{last}", value
