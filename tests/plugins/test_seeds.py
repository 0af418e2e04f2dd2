"""The random streams as literal numbers: whatever changes one of these changes every result there is."""

from __future__ import annotations

import pytest

from nsd.plugins.seeds import stream

STREAMS: list[tuple[int, tuple[str | int, ...], int]] = [
    (42, (), 4153354983022741318),
    (42, ("eval",), 8561007229832742560),
    (42, ("eval", 1), 3171833010940741522),
    (42, ("rollout", 1), 4539743000083037428),
    (42, ("rollout", 2), 1894191893802917211),
    (42, ("label", 1), 6890719854707492630),
    (42, ("init", 1), 2121275623822831462),
    (42, ("order", 1), 4474964407132811785),
    (42, ("corrupted",), 7658317780439886173),
    (42, ("target", "0123456789abcdef"), 3981581489980506141),
    (0, ("eval",), 7318043112822505868),
    (43, ("eval",), 6032087959356718472),
    (9223372036854775807, ("a", -1), 3803778978607950845),
    (7, ("q", 0), 7637698319252613966),
    (7, ("q", 1), 6834951507972744882),
    (7, ("q", "1"), 8767232472183199581),
    (7, ("q1",), 6015880023090518728),
    (7, ("é", 3), 5709458818053817531),
    (-1, ("x",), 6417555047096171185),
]


@pytest.mark.parametrize(("seed", "names", "value"), STREAMS)
def test_streams_are_these(seed: int, names: tuple[str | int, ...], value: int) -> None:
    assert stream(seed, *names) == value


def test_streams_of_different_names_differ() -> None:
    values = [value for _, _, value in STREAMS]
    assert len(set(values)) == len(values) and all(0 <= value < 2**63 for value in values)
