"""The sizes of a transformer: what its config.json says of it, and the counts that follow from them.

    shape, source = shape_of("Qwen/Qwen2.5-0.5B-Instruct")       # its config.json, a table of known models, or its name
    shape.parameters, shape.cache_elements                       # 494,032,768 and 6,144 per token

Nothing heavy is imported. The counts are of dense decoders of the Llama kind: grouped attention, a gated MLP, norms
without bias. They are exact for the `model_type`s in EXACT; of another kind of model (experts, GPT-2) they are rough,
and the size in its name counts instead where there is one.

Sources of the table: the config.json that each model has on the Hugging Face hub.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nsd.plugins.errors import InputError
from nsd.plugins.models import resolve, snapshot

EXACT = ("qwen2", "qwen3", "llama", "olmo2")
UNKNOWN_PARAMETERS = 1e9
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_OTHER_NAMES = {  # as GPT-2's config.json has them
    "num_hidden_layers": "n_layer",
    "hidden_size": "n_embd",
    "intermediate_size": "n_inner",
    "num_attention_heads": "n_head",
}


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a decoder. `tied`: the head is the embedding; `dtype` is the checkpoint's own number type.

    `stated` is a count of parameters that is known otherwise, by the name of a model of another kind; `context` is how
    many tokens it reads at most, where its config was read.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int
    head_size: int
    vocabulary: int
    tied: bool
    kind: str = "llama"
    bias: bool = False  # of the projections to queries, keys and values
    dtype: str = "bfloat16"
    stated: float | None = None
    context: int | None = field(default=None, compare=False)

    @property
    def query(self) -> int:
        """Elements of the queries of a token in a layer."""
        return self.heads * self.head_size

    @property
    def key(self) -> int:
        """Elements of the keys, or of the values, of a token in a layer."""
        return self.key_value_heads * self.head_size

    @property
    def layer_parameters(self) -> int:
        """Parameters of one layer."""
        attention = 2 * self.hidden * self.query + 2 * self.hidden * self.key
        attention += self.query + 2 * self.key if self.bias else 0
        norms = 2 * self.hidden
        norms += 2 * self.head_size if self.kind == "qwen3" else 0
        norms += self.query + self.key if self.kind == "olmo2" else 0
        return attention + 3 * self.hidden * self.intermediate + norms

    @property
    def parameters(self) -> float:
        """All of them; a tied head counts once."""
        if self.stated is not None:
            return self.stated
        ends = self.vocabulary * self.hidden * (1 if self.tied else 2) + self.hidden
        return float(ends + self.layers * self.layer_parameters)

    def adapter_parameters(self, rank: int, targets: str | tuple[str, ...] = "all-linear") -> float:
        """Parameters of a LoRA adapter: rank x (in + out) of each linear layer it stands beside."""
        sizes = {
            "q_proj": self.hidden + self.query,
            "k_proj": self.hidden + self.key,
            "v_proj": self.hidden + self.key,
            "o_proj": self.query + self.hidden,
            "gate_proj": self.hidden + self.intermediate,
            "up_proj": self.hidden + self.intermediate,
            "down_proj": self.intermediate + self.hidden,
        }
        chosen = sizes if isinstance(targets, str) else {name: sizes.get(name, 0) for name in targets}
        return float(rank * self.layers * sum(chosen.values()))

    @property
    def cache_elements(self) -> int:
        """Elements of the key-value cache that a token takes, over all layers."""
        return 2 * self.layers * self.key


def read_shape(get: Callable[[str], Any]) -> ModelShape:
    """The shape of a config. `get` gives a field by its name, None where there is none. Raises KeyError."""

    def need(name: str) -> int:
        value = get(name) or get(_OTHER_NAMES.get(name, name))
        if not isinstance(value, int):
            raise KeyError(name)
        return value

    hidden, heads = need("hidden_size"), need("num_attention_heads")
    kind = str(get("model_type") or "llama")
    tied = get("tie_word_embeddings")
    bias = get("attention_bias")
    dtype = str(get("dtype") or get("torch_dtype") or "float32").removeprefix("torch.")
    context = get("max_position_embeddings") or get("n_positions")
    wide = get("intermediate_size") or get("n_inner") or get("ffn_dim")
    return ModelShape(
        layers=need("num_hidden_layers"),
        hidden=hidden,
        intermediate=int(wide or 4 * hidden),
        heads=heads,
        key_value_heads=int(get("num_key_value_heads") or heads),
        head_size=int(get("head_dim") or hidden // heads),
        vocabulary=need("vocab_size"),
        tied=kind not in EXACT if tied is None else bool(tied),
        kind=kind,
        bias=kind == "qwen2" if bias is None else bool(bias),
        dtype=dtype if dtype in BYTES else "bfloat16",
        context=context if isinstance(context, int) else None,
    )


def _qwen2(layers: int, hidden: int, wide: int, heads: int, few: int, vocabulary: int, tied: bool) -> ModelShape:
    return ModelShape(layers, hidden, wide, heads, few, hidden // heads, vocabulary, tied, "qwen2", True)


def _qwen3(layers: int, hidden: int, wide: int, heads: int, tied: bool) -> ModelShape:
    return ModelShape(layers, hidden, wide, heads, 8, 128, 151936, tied, "qwen3")


KNOWN = {
    "qwen2.5-0.5b": _qwen2(24, 896, 4864, 14, 2, 151936, True),
    "qwen2.5-1.5b": _qwen2(28, 1536, 8960, 12, 2, 151936, True),
    "qwen2.5-3b": _qwen2(36, 2048, 11008, 16, 2, 151936, True),
    "qwen2.5-7b": _qwen2(28, 3584, 18944, 28, 4, 152064, False),
    "qwen3-0.6b": _qwen3(28, 1024, 3072, 16, True),
    "qwen3-1.7b": _qwen3(28, 2048, 6144, 16, True),
    "qwen3-4b": _qwen3(36, 2560, 9728, 32, True),
    "qwen3-8b": _qwen3(36, 4096, 12288, 32, False),
    "llama-3.2-1b": ModelShape(16, 2048, 8192, 32, 8, 64, 128256, True),
    "llama-3.2-3b": ModelShape(28, 3072, 8192, 24, 8, 128, 128256, True),
    "llama-3.1-8b": ModelShape(32, 4096, 14336, 32, 8, 128, 128256, False),
    "olmo-2-0425-1b": ModelShape(16, 2048, 8192, 16, 16, 128, 100352, False, "olmo2"),
    "olmo-2-1124-7b": ModelShape(32, 4096, 11008, 32, 32, 128, 100352, False, "olmo2"),
}
_SUFFIX = re.compile(r"-(instruct|base|it|sft|dpo)$")


def known_shape(model: str) -> ModelShape | None:
    """The shape of a model of the table, instruction-tuned or not; None for any other."""
    name = model.rsplit("/", 1)[-1].lower().removeprefix("meta-")
    return KNOWN.get(_SUFFIX.sub("", name))


def shape_of(path: str, revision: str | None = None) -> tuple[ModelShape, str]:
    """The shape of a spec's model and where it was read: "config.json", "table" or, roughly, "name"."""
    if (found := _read_config(path, revision)) is not None:
        if found.kind in EXACT or (size := stated_size(path)) is None:
            return found, "config.json"
        return replace(found, stated=size), "config.json"
    if (known := known_shape(path)) is not None:
        return known, "table"
    return _by_size(stated_size(path) or UNKNOWN_PARAMETERS), "name"


def _read_config(path: str, revision: str | None) -> ModelShape | None:
    try:
        where = resolve(path)
        folder = Path(where) if Path(where).is_absolute() else snapshot(where, revision)
        if folder is None:
            return None
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        found = {**found, **(found.get("text_config") or {})}
        return read_shape(found.get)
    except (InputError, OSError, ValueError, KeyError, AttributeError, TypeError):
        return None


def _by_size(parameters: float) -> ModelShape:
    """A model of this many parameters: the known one nearest in size, its layers made so many that it has them."""
    if parameters < 1e8:
        near = ModelShape(4, 128, 384, 4, 2, 32, 1024, True)
    else:
        near = min(KNOWN.values(), key=lambda shape: abs(shape.parameters - parameters) / shape.parameters)
    return replace(near, stated=parameters, kind="unknown")


def stated_size(model: str) -> float | None:
    """Parameters by the size in a model's name (0.5B, 7b, 1m), None where there is none."""
    sizes = re.findall(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)([bBmM])(?![A-Za-z0-9])", model)
    if not sizes:
        return None
    number, unit = sizes[-1]
    return float(number) * (1e9 if unit in "bB" else 1e6)
