"""What an audit depends on."""

from __future__ import annotations

from dataclasses import dataclass

from ntk_propulsion.errors import InputError, plain
from ntk_propulsion.runs.options import option


@dataclass(frozen=True)
class AuditSettings:
    """What an audit depends on; each field says what it means.

    ``degree`` is for checkpoints that don't say theirs; ``spectra`` take most of the time; ``seed``
    is that of the draws, of new weights, of the control's directions and of the intervals;
    ``examples`` are drawn from the task's test split.
    """

    base: str = option(meaning="minilm, a folder of a model or training, a file, or a hub id.")
    tuned: tuple[str, ...] = option(
        meaning="A checkpoint: folder, file, adapter or hub id. Several times to compare.",
        repeated=True,
    )
    degree: int | None = option(None, more="For checkpoints that do not record it.")
    spectra: bool = option(True, "Ranks and closest LoRAs.")
    task: str | None = option(None, more="Without it, no kernels.")
    data: str | None = option(None)
    examples: int = option(32)
    outputs: str = option("logits")
    seed: int = option(0)
    device: str = option("cpu")
    dtype: str = option("float32")
    memory: str = option("2.5GiB")
    text_column: str = option("text")
    pair_column: str | None = option(None)
    label_column: str = option("label")
    trust_remote_code: bool = option(False)

    def check(self) -> None:
        """Refuse values that make no sense, before anything is read.

        Raises:
            InputError: One does.
        """
        # here, so that `--help` needs no torch
        from ntk_propulsion.kernels import Options
        from ntk_propulsion.propulsion.layers import check_degree

        if not self.tuned:
            raise InputError("nothing to audit: give --tuned a checkpoint")
        if self.degree is not None:
            check_degree(self.degree)
        Options.of(self)

    @property
    def names(self) -> list[str]:
        """What the checkpoints are called in the report: distinct, and as short as that allows."""
        tuned = list(map(plain, self.tuned))
        parts = [[part for part in name.split("/") if part] or [name] for name in tuned]
        for depth in range(1, max(map(len, parts)) + 1):
            names = ["/".join(part[-depth:]) for part in parts]
            if len(set(names)) == len(names):
                return names
        return [f"{name} ({i})" for i, name in enumerate(tuned, 1)]
