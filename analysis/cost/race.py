"""All methods trained in turns: time and metric on the way."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import torch

from analysis.cost.settings import Settings
from analysis.fixtures.subject import subject
from analysis.fixtures.trainee import Trainee, batch_of
from analysis.framework.tables import Row
from ntk_propulsion.models.loaded import LoadedModel
from ntk_propulsion.tasks import Example


def now(device: str) -> float:
    """Return the time in seconds, when the device has done what it was asked to."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def race(settings: Settings, seed: int) -> list[Row]:
    """Train all methods in turns, a few steps each, and note the metric after them."""
    at = subject(settings, seed, max_length=settings.length)
    loaded, train = at.materials.loaded, at.materials.train
    runners: dict[str, tuple[LoadedModel, Trainee]] = {}
    for name in settings.methods:
        own = at.copy()
        runners[name] = (own, settings.trainee(own.model, name, seed))
    before = at.metric()
    about = {"kind": "race", "seed": seed, "metric": at.materials.task.metric}
    rows: list[Row] = [
        {**about, "method": name, "steps": 0, "seconds": 0.0, "value": before} for name in runners
    ]
    for start in range(0, settings.steps, settings.every):
        steps = range(start, min(start + settings.every, settings.steps))
        batches = [batch_of(loaded, drawn) for drawn in _drawn(train, settings.batch_size, steps)]
        for name, (own, trainee) in runners.items():
            with torch.random.fork_rng(devices=_devices(settings.device)):
                torch.manual_seed(seed + start)
                for batch, labels in batches:
                    began = now(settings.device)
                    trainee.step(batch, labels)
                    trainee.seconds += now(settings.device) - began
            point = {"steps": steps.stop, "seconds": trainee.seconds, "value": at.metric(own)}
            rows.append({**about, "method": name, **point})
    return rows


def _devices(device: str) -> list[str]:
    return [device] if torch.device(device).type == "cuda" else []


def _drawn(train: Sequence[Example], size: int, steps: range) -> Iterator[list[Example]]:
    """Yield the examples of each step, from the first again when all were taken."""
    for step in steps:
        yield [train[(step * size + i) % len(train)] for i in range(size)]
