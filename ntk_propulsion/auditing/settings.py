"""What an audit depends on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ntk_propulsion.errors import InputError


def _option(meaning: str, default: Any) -> Any:
    """Return a field of the settings: its default, and what ``--help`` says of it."""
    return field(default=default, metadata={"help": meaning})


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

    base: str = field(metadata={"help": "minilm, a Hugging Face folder, a file, or a hub id."})
    tuned: tuple[str, ...] = field(
        metadata={
            "help": "A checkpoint: folder, file, adapter or hub id. Several times to compare."
        }
    )
    degree: int | None = _option(
        "Propulsion's k: gains are z**k. For checkpoints that do not record it.", None
    )
    spectra: bool = _option("Ranks and closest LoRAs.", True)
    task: str | None = _option(
        "A task's name, a .csv/.tsv/.jsonl file, or hub:NAME. Without it, no kernels.", None
    )
    data: str | None = _option("Folder of GLUE tasks in their original TSV layout.", None)
    examples: int = _option("N, examples of each kernel.", 32)
    outputs: str = _option("Kernels of logits, margin or sum.", "logits")
    seed: int = _option("Fixes everything.", 0)
    device: str = _option("cpu, cuda, cuda:1 ...", "cpu")
    dtype: str = _option("float32 or float64, for the kernels.", "float32")
    memory: str = _option("For the kernels, beside the model.", "2.5GiB")
    text_column: str = _option("Of a file or hub data set.", "text")
    pair_column: str | None = _option("Of a file or hub data set.", None)
    label_column: str = _option("Of a file or hub data set.", "label")
    trust_remote_code: bool = _option("Let code of the checkpoint run.", False)

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
        parts = [[part for part in name.split("/") if part] or [name] for name in self.tuned]
        for depth in range(1, max(map(len, parts)) + 1):
            names = ["/".join(part[-depth:]) for part in parts]
            if len(set(names)) == len(names):
                return names
        return [f"{name} ({i})" for i, name in enumerate(self.tuned, 1)]
