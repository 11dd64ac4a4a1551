"""Fine-tuning through transformers' Trainer: to the bit, resumable, and without a word."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    DataCollatorWithPadding,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)

from ntk_propulsion.errors import InputError
from ntk_propulsion.models.loaded import LoadedModel
from ntk_propulsion.models.tokens import tokenize
from ntk_propulsion.runs.files import write_atomically
from ntk_propulsion.runs.quiet import quiet
from ntk_propulsion.tasks import Example, Kind, Task

OnStep = Callable[[int, float], None]


class TrainingDiverged(InputError):  # noqa: N818 (it names what happened)
    """The loss or a parameter became NaN or infinite; the model keeps its last finite state."""


@dataclass(frozen=True)
class TrainingLog:
    """How a fine-tuning went.

    Attributes:
        losses: Loss of each step's batch before the step, mean over examples.
        steps: How many steps were taken.
        seconds: Time in steps, over all runs where it was resumed.
        trainable_parameters: How many numbers were trained.
        learning_rate: The peak learning rate.
    """

    losses: list[float]
    steps: int
    seconds: float
    trainable_parameters: int
    learning_rate: float


def finetune(
    loaded: LoadedModel,
    task: Task,
    examples: Sequence[Example],
    *,
    steps: int,
    learning_rate: float,
    batch_size: int = 16,
    seed: int = 0,
    weight_decay: float = 0.0,
    warmup: int = 0,
    schedule: str = "linear",
    max_grad_norm: float = 1.0,
    dropout: bool = True,
    output_dir: Path | None = None,
    save_steps: int | None = None,
    on_step: OnStep | None = None,
) -> TrainingLog:
    """Train whatever requires a gradient with AdamW on cross-entropy or squared error, in place.

    Two runs on one machine agree to the bit. With ``output_dir`` the training goes on from the
    last complete checkpoint in it, and ends in the same numbers as an unbroken run. Checkpoints
    hold what is trained, not what is frozen: a resumed run needs the model as it was at first.

    Args:
        loaded: The model (in place; its mode comes back as it was) and its tokenizer.
        task: Settles the loss.
        examples: What to train on, in a seeded order, padded batch by batch.
        steps: How many optimiser steps.
        learning_rate: The peak of the schedule.
        batch_size: Examples per step.
        seed: Fixes order and dropout.
        weight_decay: AdamW's decay of weights, not of biases and normalisations.
        warmup: Steps of linear warm-up.
        schedule: A name transformers knows: ``"linear"``, ``"constant"``, ``"cosine"``, ...
        max_grad_norm: Longest gradient, clipped; 0 clips nothing.
        dropout: Whether to train in training mode; False trains in evaluation mode.
        output_dir: Where checkpoints go; without it none are kept.
        save_steps: Steps between checkpoints, by default a fifth of all steps.
        on_step: Called after each step with its number (from 1) and loss.

    Raises:
        TrainingDiverged: If the loss or a parameter is NaN or infinite.
        InputError: If nothing is trainable, a number makes no sense, or ``output_dir`` holds a
            training with other settings.
    """
    trainable = sum(p.numel() for p in loaded.model.parameters() if p.requires_grad)
    _check(steps, learning_rate, batch_size, trainable, len(examples))
    settings = {
        "steps": steps,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "seed": seed,
        "weight_decay": weight_decay,
        "warmup": warmup,
        "schedule": schedule,
        "max_grad_norm": max_grad_norm,
        "dropout": dropout,
        "trainable_parameters": trainable,
        "examples": [[e.index, e.label] for e in examples],
    }
    rows: list[dict[str, Any]] = [
        {**row, "labels": example.label}
        for row, example in zip(tokenize(loaded, examples).rows, examples, strict=True)
    ]
    with (
        quiet(),
        TemporaryDirectory() if output_dir is None else nullcontext(output_dir) as folder,
        _restored(loaded.model),
    ):
        checkpoint = _last_checkpoint(Path(folder), settings)
        save = save_steps or math.ceil(steps / 5) if output_dir is not None else None
        arguments = _arguments(Path(folder), settings, loaded.model.device, save)
        trainer = _Trainer(loaded, arguments, rows, task.kind, dropout, on_step)
        if not trainer.restore_finished(checkpoint):
            trainer.train(resume_from_checkpoint=checkpoint)
        trainer.check_parameters()
    history = [entry for entry in trainer.state.log_history if "step_loss" in entry]
    return TrainingLog(
        [entry["step_loss"] for entry in history],
        trainer.state.global_step,
        sum(entry["seconds"] for entry in history),
        trainable,
        learning_rate,
    )


class _Progress(TrainerCallback):
    """Tells the caller of each step, before a checkpoint is written."""

    def __init__(self, on_step: OnStep) -> None:
        self._on_step = on_step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._on_step(state.global_step, state.log_history[-1]["step_loss"])


class _Trainer(Trainer):
    """The Trainer with our loss, a log to the bit, and checkpoints of what is trained only."""

    def __init__(
        self,
        loaded: LoadedModel,
        arguments: TrainingArguments,
        rows: list[dict[str, Any]],
        kind: Kind,
        dropout: bool,
        on_step: OnStep | None,
    ) -> None:
        super().__init__(
            loaded.model,
            arguments,
            train_dataset=rows,
            data_collator=DataCollatorWithPadding(loaded.tokenizer),
        )
        self.remove_callback(PrinterCallback)
        if on_step:
            self.add_callback(_Progress(on_step))
        self._kind, self._dropout = kind, dropout
        self._trained = {n: p for n, p in loaded.model.named_parameters() if p.requires_grad}
        self._finite: dict[str, Tensor] = {}

    def restore_finished(self, checkpoint: str | None) -> bool:
        """Take over a checkpoint of the last step; the Trainer itself would go a step further."""
        if checkpoint is None:
            return False
        state = TrainerState.load_from_json(str(Path(checkpoint) / "trainer_state.json"))
        if state.global_step < self.args.max_steps:
            return False
        self.state = state
        self._load_from_checkpoint(checkpoint)
        return True

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Take a step, and note its loss and time in the state, which checkpoints carry."""
        start = time.perf_counter()
        loss = super().training_step(*args, **kwargs)
        entry = {"step_loss": float(loss), "seconds": time.perf_counter() - start}
        self.state.log_history.append(entry)
        return loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the mean cross-entropy or squared error; stop where it is not finite."""
        if not self._dropout:
            model.eval()
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        if self._kind == "regression":
            loss = nn.functional.mse_loss(outputs.logits[:, 0], labels.to(outputs.logits.dtype))
        else:
            loss = nn.functional.cross_entropy(outputs.logits, labels)
        if not loss.isfinite():
            self._diverged("loss")
        self._finite = {name: p.detach().clone() for name, p in self._trained.items()}
        return (loss, outputs) if return_outputs else loss

    def check_parameters(self) -> None:
        """Stop if the last step left a parameter that is not finite."""
        if not all(p.isfinite().all() for p in self._trained.values()):
            self._diverged("a parameter")

    def _diverged(self, what: str) -> None:
        with torch.no_grad():
            for name, tensor in self._finite.items():
                self._trained[name].copy_(tensor)
        step = self.state.global_step + (what == "loss")
        raise TrainingDiverged(
            f"{what} is NaN or infinite at step {step} with learning rate "
            f"{self.args.learning_rate:g}: lower it, or warm up longer"
        )

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the trained parameters (tied ones once)."""
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: p.detach().cpu().contiguous() for name, p in self._trained.items()}
        save_file(tensors, folder / "trained.safetensors")

    @torch.no_grad()
    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        saved = load_file(Path(resume_from_checkpoint) / "trained.safetensors")
        for name, parameter in self._trained.items():
            parameter.copy_(saved[name])


def _check(
    steps: int, learning_rate: float, batch_size: int, trainable: int, examples: int
) -> None:
    if steps < 1:
        raise InputError(f"{steps} steps: train for at least 1")
    if not 0 < learning_rate < 1e30:
        raise InputError(f"a learning rate of {learning_rate}: it must be positive and finite")
    if batch_size < 1:
        raise InputError(f"a batch size of {batch_size}: it must be at least 1")
    if not trainable:
        raise InputError("no parameter of the model requires a gradient: nothing to train")
    if not examples:
        raise InputError("no examples to train on")


def _arguments(
    folder: Path, settings: Mapping[str, Any], device: torch.device, save_steps: int | None
) -> TrainingArguments:
    try:
        arguments = TrainingArguments(
            output_dir=str(folder),
            max_steps=settings["steps"],
            per_device_train_batch_size=settings["batch_size"],
            learning_rate=settings["learning_rate"],
            weight_decay=settings["weight_decay"],
            warmup_steps=settings["warmup"],
            lr_scheduler_type=settings["schedule"],
            max_grad_norm=settings["max_grad_norm"],
            seed=settings["seed"],
            optim="adamw_torch",
            save_strategy="no" if save_steps is None else "steps",
            save_steps=save_steps or settings["steps"],
            save_total_limit=1,
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            use_cpu=device.type == "cpu",
        )
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"cannot train with these settings: {reason}") from error
    arguments._n_gpu = min(1, arguments.n_gpu)  # with more, the Trainer spreads batches over all
    return arguments


def _last_checkpoint(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """Return the last complete checkpoint of a training with the same settings, if there is one.

    Raises:
        InputError: If the folder holds a training with other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "settings.json"
    found = _json(file)
    if found is None:
        write_atomically(file, json.dumps(settings))
        return None
    other = sorted(key for key in settings if found.get(key) != settings[key])
    if other:
        raise InputError(
            f"{folder} holds a training with another setting of {', '.join(other)}: "
            "name another folder, or empty it"
        )
    complete = {}
    for path in folder.glob("checkpoint-*"):
        state = _json(path / "trainer_state.json")  # written last
        if state is None:
            shutil.rmtree(path)
        else:
            complete[state["global_step"]] = str(path)
    return complete[max(complete)] if complete else None


def _json(path: Path) -> dict[str, Any] | None:
    """Return what a JSON file holds, None if it is absent or cut off."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


@contextmanager
def _restored(model: Any) -> Iterator[None]:
    """Give back the model's mode and the random states, and drop the gradients.

    On CUDA, deterministic algorithms are asked for meanwhile.
    """
    cuda = model.device.type == "cuda"
    states, training = (random.getstate(), np.random.get_state()), model.training
    exact = torch.are_deterministic_algorithms_enabled()
    if cuda:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with torch.random.fork_rng(devices=[model.device] if cuda else []):
            yield
    finally:
        torch.use_deterministic_algorithms(exact)
        random.setstate(states[0])
        np.random.set_state(states[1])
        model.train(training)
        model.zero_grad(set_to_none=True)
