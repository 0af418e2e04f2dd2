"""What votes that stop early are expected to draw of their samples, before they are drawn.

    saving = expected(stage, manifests)
    saving.share, saving.sentence()

The winner's votes of the newest label stage with the same verifier say it, without any the histogram that the labeler
states. How wrong answers repeat is not in a histogram, so it is a guess.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nsd.plugins.api import Labeler
from nsd.plugins.registry import find
from nsd.runner.plan.jobs import ToSample
from nsd.runner.plan.model import Stage
from nsd.runner.store.shapes import Manifest


@dataclass(frozen=True)
class Saving:
    """The share of its samples that a stage is expected to draw, and whose votes say so."""

    stage: str
    share: float
    source: str

    def sentence(self) -> str:
        """The expectation, for a person."""
        return (
            f"{self.stage}: its votes stop when they are decided; about {self.share:.0%} of the samples are expected "
            f"to be asked for, by {self.source}; what is stored is not drawn again"
        )


def expected(stage: Stage, manifests: Iterable[Manifest]) -> Saving | None:
    """None for a stage that draws all of its samples."""
    job = stage.job
    if not isinstance(job, ToSample) or job.asking is None:
        return None
    cls = find("labeler", job.asking.labeler.use)
    labeler = cls(cls.Config.model_validate(job.asking.labeler.config))
    assert isinstance(labeler, Labeler)
    for one in sorted(manifests, key=lambda one: str(one.ended_at), reverse=True):
        if (found := _histogram(one, job.asking.verifier.use)) is not None:
            histogram, of = found
            return Saving(stage.title, labeler.expected_share(histogram, of), "the votes of an earlier run here")
    return Saving(stage.title, labeler.expected_share(), "the histogram of votes that the labeler states")


def _histogram(manifest: Manifest, verifier: str) -> tuple[dict[int, int], int] | None:
    """Winner's votes -> questions of a stage that drew all its samples, and of how many samples."""
    if manifest.kind != "label" or manifest.labels is None:
        return None
    try:
        made = manifest.made_of
        bars, k = manifest.labels.to_json()["confidence_histogram"], int(made["labeler"]["config"]["k"])
        if made["verifier"]["use"] != verifier:
            return None
        return {round(float(share) * k): int(count) for share, count in bars.items()}, k
    except (LookupError, TypeError, ValueError, AttributeError):
        return None  # of another labeler, or of votes that stopped early
