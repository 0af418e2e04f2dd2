"""What single planted faults in the plugins got past."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from nsd.plugins.protocols.pass_at_k import PassAtK


def test_pass_at_k_takes_exactly_k_completions_and_no_fewer() -> None:
    assert PassAtK(PassAtK.Config(k=4, n=4)).sampling().n == 4
    with pytest.raises(ValidationError, match="needs at least 4 completions, n is 3"):
        PassAtK.Config(k=4, n=3)
