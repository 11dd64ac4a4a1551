"""What training costs by method: numbers trained, memory, time a step, time to a target, energy.

All methods are measured in one run and in turns, so that a busy minute of the machine hits all.
One loop serves every measurement: that of `analysis.fixtures.trainee`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from analysis.cost.memory import bytes_of, memory_of
from analysis.cost.race import now, race
from analysis.cost.settings import Settings
from analysis.cost.summary import summary, targets
from analysis.fixtures.subject import Subject, subject
from analysis.fixtures.trainee import Tokens, Trainee, batch_of
from analysis.framework.meters import (
    EnergyMeter,
    NoCounterError,
    apart,
    energy_counters,
)
from analysis.framework.study import Work, seeds
from analysis.framework.tables import Row
from ntk_propulsion.errors import InputError, unknown
from ntk_propulsion.runs.environment import environment

PRELOADED = ("analysis.fixtures.subject", "ntk_propulsion.training.methods", "peft")


def measure(settings: Settings, work: Work) -> list[Row]:
    """Count, time, weigh and race all methods, then sum up the rounds."""
    _check(settings)
    bench = _Bench(settings)
    rows = work.cell("sizes", bench.sizes)
    for turn in range(settings.rounds):
        rows += work.cell(f"time-{turn}", partial(bench.times, turn))
        rows += work.cell(f"memory-{turn}", partial(bench.memory, turn))
    for seed in seeds(settings):
        rows += work.cell(f"race-{seed}", partial(race, settings, seed))
    return [*rows, *targets(rows, settings.target), *summary(rows, settings)]


def _check(settings: Settings) -> None:
    for name in settings.methods:
        if name not in Settings.methods:
            raise unknown("method", name, Settings.methods)
    for name in ("rounds", "every", "length"):
        if getattr(settings, name) < 1:
            raise InputError(f"--{name} {getattr(settings, name)}: give 1 or more")


class _Bench:
    """All methods side by side on one batch; loaded when a cell first needs it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @cached_property
    def at(self) -> Subject:
        return subject(self.settings, 0, max_length=self.settings.length)

    @cached_property
    def batch(self) -> tuple[Tokens, Tensor]:
        chosen = self.at.materials.train[: self.settings.batch_size]
        return batch_of(self.at.materials.loaded, chosen, pad_to=self.settings.length)

    @cached_property
    def trainees(self) -> dict[str, Trainee]:
        """Every method's own copy, after a first step and a forward that are not measured."""
        found = {name: self.settings.trainee(self.at.copy().model, name) for name in self.names}
        for trainee in found.values():
            trainee.step(*self.batch)
            trainee.forward(self.batch[0])
        return found

    @property
    def names(self) -> tuple[str, ...]:
        return self.settings.methods

    def sizes(self) -> list[Row]:
        """Count what trains, and weigh gradients and AdamW's state after a step."""
        batch, labels = self.batch
        few = {key: value[: self.settings.examples] for key, value in batch.items()}
        rows: list[Row] = []
        for name in self.names:
            model = self.at.copy().model
            before = sum(p.numel() for p in model.parameters())
            trainee = self.settings.trainee(model, name)
            start = [p.detach().clone() for p in model.parameters()]
            trainee.backward(few, labels[: self.settings.examples])
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            trainee.optimizer.step()
            state = [t for each in trainee.optimizer.state.values() for t in each.values()]
            moments = [t for t in state if t.ndim]
            ends = zip(start, model.parameters(), strict=True)
            found = {
                "model_parameters": before,
                "parameters": trainee.trained,
                "gradient_numbers": sum(g.numel() for g in gradients),
                "gradient_bytes": sum(map(bytes_of, gradients)),
                "state_numbers": sum(t.numel() for t in moments),
                "state_bytes": sum(map(bytes_of, state)),
                "counters": len(state) - len(moments),
                "moved": sum(int((old != new).sum()) for old, new in ends),
                "rate": self.settings.rate(name),
            }
            rows.append({"kind": "size", "method": name, **found})
        return [{"kind": "hardware", "name": self.hardware, "energy": self.energy}, *rows]

    @property
    def hardware(self) -> str:
        """What the measurements were made on."""
        found, threads = asdict(environment({})), torch.get_num_threads()
        if torch.device(self.settings.device).type == "cuda":
            return str(found["gpu"])
        return f"{found['cpu']}, {threads} of {found['cores']} cores"

    @property
    def energy(self) -> str:
        """What energy is counted, or why none is."""
        try:
            counters = energy_counters(self.settings.device)
        except NoCounterError as reason:
            return f"not available: {reason}"
        return f"counted: {', '.join(counter.name for counter in counters)}"

    def times(self, turn: int) -> list[Row]:
        """Time every method's steps, each time another one first."""
        first = turn % len(self.names)
        rows: list[Row] = []
        for name in (*self.names[first:], *self.names[:first]):
            trainee, span = self.trainees[name], self.settings.span
            step, joules = self._timed(partial(trainee.step, *self.batch), span)
            forward, _ = self._timed(partial(trainee.forward, self.batch[0]), span / 2)
            found = {"step_seconds": step, "forward_seconds": forward, "step_joules": joules}
            rows.append({"kind": "time", "method": name, "round": turn, **found})
        return rows

    def _timed(self, do: Callable[[], None], span: float) -> tuple[float, float | None]:
        """Return seconds and joules of one repetition, of as many as fill a span, 2 at least."""
        try:
            meter = EnergyMeter(energy_counters(self.settings.device))
        except NoCounterError:
            meter = None
        start, done = now(self.settings.device), 0
        while done < 2 or time.perf_counter() - start < span:
            do()
            done += 1
            if done % 8 == 0:  # now and then: waiting for a GPU each time would slow it
                now(self.settings.device)
        seconds = now(self.settings.device) - start
        return seconds / done, None if meter is None else meter.joules() / done

    def memory(self, turn: int) -> list[Row]:
        """Train each method in a process of its own and note its peak of memory."""
        task = self.at.materials.task
        train = tuple(self.at.materials.train[: self.settings.batch_size])
        few = replace(task, train=train, test=task.test[:1])
        threads = torch.get_num_threads()
        return [
            {
                "kind": "memory",
                "method": name,
                "round": turn,
                **apart(PRELOADED, memory_of, self.settings, few, name, threads),
            }
            for name in self.names
        ]
