"""What an audit depends on."""

from __future__ import annotations

from dataclasses import dataclass, field

from ntk_propulsion.errors import InputError
from ntk_propulsion.runs.options import option


@dataclass(frozen=True)
class AuditSettings:
    """What an audit depends on; each field says what it means.

    ``degree`` is for checkpoints that don't say theirs; ``spectra`` take most of the time; ``seed``
    is that of the draws, of new weights, of the control's directions and of the intervals;
    ``examples`` are drawn from the task's test split.
    """

    base: str = field(metadata={"help": "minilm, a Hugging Face folder, a file, or a hub id."})
    tuned: tuple[str, ...] = field(
        metadata={
            "help": "A checkpoint: folder, file, adapter or hub id. Several times to compare."
        }
    )
    degree: int | None = option(
        None, "Propulsion's k: gains are z**k. For checkpoints that do not record it."
    )
    spectra: bool = option(True, "Ranks and closest LoRAs.")
    task: str | None = option(
        None, "A task's name, a .csv/.tsv/.jsonl file, or hub:NAME. Without it, no kernels."
    )
    data: str | None = option(None, "Folder of GLUE tasks in their original TSV layout.")
    examples: int = option(32, "N, examples of each kernel.")
    outputs: str = option("logits", "Kernels of logits, margin or sum.")
    seed: int = option(0, "Fixes everything.")
    device: str = option("cpu", "cpu, cuda, cuda:1 ...")
    dtype: str = option("float32", "float32 or float64, for the kernels.")
    memory: str = option("2.5GiB", "For the kernels, beside the model.")
    text_column: str = option("text", "Of a file or hub data set.")
    pair_column: str | None = option(None, "Of a file or hub data set.")
    label_column: str = option("label", "Of a file or hub data set.")
    trust_remote_code: bool = option(False, "Let code of the checkpoint run.")

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
