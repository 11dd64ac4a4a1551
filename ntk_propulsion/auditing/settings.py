"""What an audit depends on."""

from __future__ import annotations

from dataclasses import dataclass

from ntk_propulsion.errors import InputError
from ntk_propulsion.runs.options import option


@dataclass(frozen=True)
class AuditSettings:
    """What an audit depends on.

    Attributes:
        base: What was tuned: ``"minilm"``, a folder, a file of tensors, or a hub id.
        tuned: What came of it: folders or files, or hub ids; one or several.
        degree: The power k of the gains, for checkpoints that don't say it.
        spectra: Whether to compute the updates' singular values, which takes most of the time.
        task: Kernels are computed on it; None for no kernels.
        data: The GLUE folder, if the task is read from one.
        examples: N, drawn from the task's test split.
        outputs: What the kernels are of: logits, margin or sum.
        seed: Of the draws, of new weights, of the control's directions and of the intervals.
        device: Where the kernels are computed.
        dtype: ``"float32"`` or ``"float64"`` for the kernels.
        memory: What their computation may hold beside the models.
        text_column: Of a task's file.
        pair_column: Of a task's file.
        label_column: Of a task's file.
        trust_remote_code: Whether code of the base may run, when kernels need it as a model.
    """

    base: str = option(meaning="minilm, a Hugging Face folder, a file, or a hub id.")
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
        from ntk_propulsion.experiment.settings import check_kernels
        from ntk_propulsion.propulsion.layers import check_degree

        if not self.tuned:
            raise InputError("nothing to audit: give --tuned a checkpoint")
        if self.degree is not None:
            check_degree(self.degree)
        check_kernels(
            examples=self.examples,
            outputs=self.outputs,
            dtype=self.dtype,
            seed=self.seed,
            memory=self.memory,
        )

    @property
    def names(self) -> list[str]:
        """What the checkpoints are called in the report: distinct, and as short as that allows."""
        parts = [[part for part in name.split("/") if part] or [name] for name in self.tuned]
        for depth in range(1, max(map(len, parts)) + 1):
            names = ["/".join(part[-depth:]) for part in parts]
            if len(set(names)) == len(names):
                return names
        return [f"{name} ({i})" for i, name in enumerate(self.tuned, 1)]
