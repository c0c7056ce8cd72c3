"""What is known of a piece once it has been run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from adder_onnx.ray.evaluation.counts import AnswerCounts

__all__ = ["PieceResult"]


@dataclass(frozen=True)
class PieceResult:
    """A piece that has been run, or could not be.

    Attributes:
        number: of the piece.
        images: that were run.
        skipped: images that could not be read.
        labelled: images with a class.
        counts: of answers for these.
        sum_to_one: whether the scores of each image sum to 1, as probabilities do.
        seconds: that the piece took, decoding included.
        model_seconds: of these, in the model.
        actor: that ran it: its node's address and its number there.
        attempt: how often it had been begun, this time included.
        answers: of each image, as an Arrow stream, where they were asked for and not written.
        error: the class and the message of what is wrong, where something is.
    """

    number: int
    images: int = 0
    skipped: int = 0
    labelled: int = 0
    counts: AnswerCounts = field(default_factory=AnswerCounts)
    sum_to_one: bool = True
    seconds: float = 0.0
    model_seconds: float = 0.0
    actor: str = ""
    attempt: int = 1
    answers: bytes | None = None
    error: tuple[str, str] | None = None

    def as_json(self) -> dict[str, Any]:
        """All but the answers, for a file; see `from_json`."""
        found = {name: getattr(self, name) for name in _KEPT}
        return found | {"counts": self.counts.as_json()}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> PieceResult:
        """What `as_json` gave."""
        kept = {name: found[name] for name in _KEPT}
        return cls(**kept, counts=AnswerCounts.from_json(found["counts"]))


_KEPT = (
    "number",
    "images",
    "skipped",
    "labelled",
    "sum_to_one",
    "seconds",
    "model_seconds",
    "actor",
    "attempt",
)
