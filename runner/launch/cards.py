"""The accelerators that estimates know: rates, bandwidth and memory, by the names that SkyPilot and drivers use.

    card_of("NVIDIA GeForce RTX 4090").name     # "RTX4090", as for "RTX4090" and "RTX 4090"
    card_of("NVIDIA L40S").name                 # "L40S": names are compared whole, so it is no L4
    card_of("NVIDIA H100 NVL")                  # None: not in the table, and nothing is guessed

Sources: NVIDIA's data sheets of each card (for the RTX cards of the GeForce line: the white papers of Turing, Ampere
GA102, Ada and Blackwell RTX). TFLOPS are dense, in the type that nsd computes in, with sums in float32: bfloat16 from
compute capability 8.0 on, float16 on T4, V100 and RTX 2080 Ti, float32 on P100. Memory is what nvidia-smi reports, in
GiB: less than the sheet's round number where ECC takes a part.

Limits: one figure for each card, whatever its power limit; a MIG instance, a mobile and a cut-down card ("Laptop GPU",
"4090 D") are others, and not in the table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

HalfType = Literal["bfloat16", "float16", "float32"]


@dataclass(frozen=True)
class Card:
    """`tflops` in `half`, `bandwidth` in GB/s, `memory` in GiB (0: no limit is known). `gb` is in the card's name."""

    name: str
    tflops: float
    bandwidth: float
    memory: float
    gb: int
    half: HalfType = "bfloat16"


_ALL = (
    Card("T4", 65, 320, 15.0, 16, "float16"),
    Card("V100", 125, 900, 16.0, 16, "float16"),
    Card("V100-32GB", 125, 900, 32.0, 32, "float16"),
    Card("P100", 9.3, 732, 15.9, 16, "float32"),
    Card("RTX2080Ti", 53.8, 616, 11.0, 11, "float16"),
    Card("RTX3090", 71, 936, 24.0, 24),
    Card("RTX4090", 165.2, 1008, 24.0, 24),
    Card("RTX5090", 209.5, 1792, 31.8, 32),
    Card("RTX6000-Ada", 364.2, 960, 48.0, 48),
    Card("A6000", 154.8, 768, 48.0, 48),
    Card("L4", 121, 300, 22.5, 24),
    Card("L40", 181, 864, 45.0, 48),
    Card("L40S", 362, 864, 45.0, 48),
    Card("A10", 125, 600, 22.5, 24),
    Card("A10G", 70, 600, 22.5, 24),
    Card("A30", 165, 933, 24.0, 24),
    Card("A40", 149.7, 696, 45.0, 48),
    Card("A100", 312, 1555, 40.0, 40),
    Card("A100-80GB", 312, 2039, 80.0, 80),
    Card("H100", 989, 3350, 79.6, 80),
    Card("H100-PCIe", 756, 2000, 79.6, 80),
    Card("H200", 989, 4800, 140.4, 141),
    Card("B200", 2250, 8000, 179.1, 192),
    Card("GH200", 989, 4000, 95.6, 96),
)
CARDS = {card.name: card for card in _ALL}
CPU = Card("CPU", 0.2, 20, 0.0, 0, "float32")  # a few cores

# How a card is called otherwise, without maker, form factor and memory.
_ALIASES = {
    "RTX6000ADA": "RTX6000-Ada",
    "RTXA6000": "A6000",
    "H100MEGA": "H100",
}
_MAKERS = {"NVIDIA", "TESLA", "GEFORCE", "GENERATION", "GPU"}
_FORMS = {"SXM", "SXM2", "SXM3", "SXM4", "SXM5", "SXM6", "PCIE", "HBM2", "HBM2E", "HBM3", "HBM3E"}
_MEMORY = re.compile(r"(\d+)GB")


def card_of(name: str | None) -> Card | None:
    """The card of a name that torch, nvidia-smi or SkyPilot gives; `CPU` for None, None for one that is not known."""
    if name is None:
        return CPU
    core, forms, memory = _parts(name)
    same = [card for card in _ALL if _parts(card.name)[0] == core or _ALIASES.get(core) == card.name]
    if core == "H100":
        same = [card for card in same if ("PCIE" in forms) == (card.name == "H100-PCIe")]
    if core == "GH200":  # its name gives the processor's memory
        return CARDS["GH200"] if memory in (None, 96, 120, 480) else None
    if memory is None:
        return min(same, key=lambda card: card.gb) if same else None
    return next((card for card in same if card.gb == memory), None)


def card_key(name: str) -> str:
    """What two names of one kind of GPU have in common: the card's name, or all of the name where it is not known."""
    card = card_of(name)
    return card.name if card is not None else re.sub(r"[^A-Z0-9]", "", name.upper())


def _parts(name: str) -> tuple[str, set[str], int | None]:
    """The name without maker, form factor and memory; the form factors; the memory in GB."""
    words = re.findall(r"[A-Z0-9.]+", name.upper())
    memory = [int(found[1]) for word in words if (found := _MEMORY.fullmatch(word))]
    core = [word for word in words if word not in _MAKERS | _FORMS and not _MEMORY.fullmatch(word)]
    return "".join(core), {*words} & _FORMS, memory[-1] if memory else None
