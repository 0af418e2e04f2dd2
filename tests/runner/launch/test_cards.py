"""Names of GPUs: one card has many names, and names that look alike are different cards."""

from __future__ import annotations

import pytest

from nsd.runner.launch.cards import CARDS, CPU, card_key, card_of
from nsd.runner.work.device import split_accelerator

# What torch and nvidia-smi print, and what SkyPilot calls it.
NAMES = {
    "T4": ["Tesla T4", "T4"],
    "V100": ["Tesla V100-SXM2-16GB", "V100"],
    "V100-32GB": ["Tesla V100-SXM2-32GB", "V100-32GB"],
    "P100": ["Tesla P100-PCIE-16GB", "P100"],
    "RTX2080Ti": ["NVIDIA GeForce RTX 2080 Ti", "RTX2080Ti"],
    "RTX3090": ["NVIDIA GeForce RTX 3090", "RTX3090"],
    "RTX4090": ["NVIDIA GeForce RTX 4090", "RTX 4090", "RTX4090", "rtx4090"],
    "RTX5090": ["NVIDIA GeForce RTX 5090", "RTX5090"],
    "RTX6000-Ada": ["NVIDIA RTX 6000 Ada Generation", "RTX6000-Ada"],
    "A6000": ["NVIDIA RTX A6000", "A6000"],
    "L4": ["NVIDIA L4", "L4"],
    "L40": ["NVIDIA L40", "L40"],
    "L40S": ["NVIDIA L40S", "L40S"],
    "A10": ["NVIDIA A10", "A10"],
    "A10G": ["NVIDIA A10G", "A10G"],
    "A30": ["NVIDIA A30", "A30"],
    "A40": ["NVIDIA A40", "A40"],
    "A100": ["NVIDIA A100-SXM4-40GB", "A100-PCIE-40GB", "A100"],
    "A100-80GB": ["NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB PCIe", "A100-80GB", "A100-80GB-SXM"],
    "H100": ["NVIDIA H100 80GB HBM3", "H100", "H100-SXM", "H100-MEGA"],
    "H100-PCIe": ["NVIDIA H100 PCIe", "H100-PCIe"],
    "H200": ["NVIDIA H200", "H200"],
    "B200": ["NVIDIA B200", "B200"],
    "GH200": ["NVIDIA GH200 480GB", "GH200"],
}


@pytest.mark.parametrize(("name", "card"), [(name, card) for card, names in NAMES.items() for name in names])
def test_every_name_leads_to_its_card(name: str, card: str) -> None:
    found = card_of(name)
    assert found is not None and found.name == card == card_key(name)


def test_every_card_has_a_name_of_a_driver() -> None:
    assert set(NAMES) == set(CARDS)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "NVIDIA GeForce RTX 4090 Laptop GPU",
            "NVIDIA GeForce RTX 4090 D",
            "NVIDIA GeForce RTX 3090 Ti",
            "Quadro RTX 6000",
        ),
        *(
            "NVIDIA H100 NVL",
            "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
            "NVIDIA GB200",
            "NVIDIA GH200 144G HBM3e",
            "A100-20GB",
        ),
        *("AMD Instinct MI300X", "tpu-v2-8", "L4x", "4090", ""),
    ],
)
def test_another_card_is_none_of_the_table(name: str) -> None:
    assert card_of(name) is None


def test_two_names_of_a_card_that_is_not_known_are_compared_whole() -> None:
    assert card_key("AMD Instinct MI300X") == card_key("amd instinct-mi300x") != card_key("MI300X")


def test_without_an_accelerator_it_is_the_processor() -> None:
    assert card_of(None) is CPU


@pytest.mark.parametrize(("text", "found"), [("L4:2", ("L4", 2)), ("A100-80GB", ("A100-80GB", 1)), (None, (None, 1))])
def test_an_accelerator_has_a_name_and_a_number(text: str | None, found: tuple[str | None, int]) -> None:
    assert split_accelerator(text) == found
