"""What long work tells while it goes on."""

from __future__ import annotations


class Progress:
    """What long work tells while it goes on; silent unless overridden."""

    def begin(self, what: str, total: int | None = None) -> None:
        """A step of the work begins; ``total`` units if they are countable."""

    def advance(self, done: int, total: int | None = None) -> None:
        """So many units of the current step are done; ``total`` if it was not known before."""
