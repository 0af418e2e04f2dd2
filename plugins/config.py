"""What the config of a plugin is made of: its base class, the marks of its fields, and the parts that plugins share.

class Config(PluginConfig):
    path: Annotated[str, SpecPath()]
    batch_size: Annotated[int | None, OutputNeutral()] = None
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class OutputNeutral:
    """Marks a config field that changes how fast or where a stage runs, never what comes out.

    Used as `Annotated[int, OutputNeutral()]`; such fields are left out of every digest.
    """


@dataclass(frozen=True)
class KnownAs:
    """Marks a config field of whose value a digest holds only what `by` makes of it: an address shapes no output."""

    by: Callable[[Any], Any]


@dataclass(frozen=True)
class SpecPath:
    """Marks a config field (text, or a list of texts) that names a file or folder, counted from the spec's folder.

    Used as `Annotated[str, SpecPath()]`; a field of type `pathlib.Path` is one without a mark. With `hub` the text may
    be the name of a hub dataset as well: then it is a path where it looks like one or exists in the spec's folder.
    The field is no path where the field `unless` is given. The plugin gets the absolute path; digests keep the text.
    """

    hub: bool = False
    unless: str | None = None


@dataclass(frozen=True)
class NestedPlugin:
    """Marks a config field that holds a plugin block ({use: NAME, ...}), or a list of such blocks, of this kind.

    Used as `Annotated[dict[str, Any], NestedPlugin("reward")]`. The spec's reader checks what stands there like any
    other block; the plugin finds the class with `registry.find(kind, block["use"])`.
    """

    kind: str


class PluginConfig(BaseModel):
    """Base of every plugin's config: unknown keys are errors, values do not change."""

    # Built when first used: the schema of a part that stands in a larger one is never used alone.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class SplitConfig(PluginConfig):
    """How many questions go where. Counts are of distinct questions; `test: null` takes all there are."""

    labeled: int = Field(default=0, ge=0)
    unlabeled: int = Field(default=0, ge=0)
    test: int | None = Field(default=None, ge=0)
    seed: int = Field(default=42, ge=0, lt=2**32, description="Seed of the shuffle, the same for every run seed.")


class DatasetConfig(PluginConfig):
    """Base of every dataset's config."""

    split: SplitConfig = SplitConfig()


class LoraConfig(PluginConfig):
    """Low-rank adapters instead of full fine-tuning (arXiv 2106.09685)."""

    rank: int = Field(ge=1)
    alpha: float = Field(default=32, gt=0)
    targets: str | list[str] = Field(default="all-linear", description='"all-linear" or module names.')
    dropout: float = Field(default=0.0, ge=0, lt=1)
