"""What training costs by method: numbers trained, memory, time a step, time to a target, energy.

All methods are measured in one run and in turns, so that a busy minute of the machine hits all.
One loop serves every measurement: that of `analysis.fixtures.trainee`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import Any, cast

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from analysis.cost import figure as cost_figure
from analysis.fixtures.subject import Subject, subject
from analysis.fixtures.trainee import Tokens, Trainee, batch_of
from analysis.framework.meters import (
    EnergyMeter,
    NoCounterError,
    ProcessMemory,
    apart,
    energy_counters,
)
from analysis.framework.options import Training
from analysis.framework.rules import Estimate, Verdict, verdict, within
from analysis.framework.study import Check, Row, Study, Work, seeds
from ntk_propulsion import words
from ntk_propulsion.errors import InputError, unknown
from ntk_propulsion.models.loaded import Head, LoadedModel
from ntk_propulsion.models.loading import load_model
from ntk_propulsion.runs.environment import environment
from ntk_propulsion.runs.options import option
from ntk_propulsion.tasks import Example, Task

RATES = {"lora": 5e-4, "adalora": 2e-3, "ia3": 3e-3, "bitfit": 1e-3, "layernorm": 1e-3}
RATES |= {"rowcolumn": 5e-4}
"""Learning rates of the other methods: customary ones, not searched for."""
MEMORY_STEPS = 2  # the second is the first with the state of AdamW beside the activations
PAPERS = 17.2 / 26.0  # gigabytes, Fig. 4
RESAMPLES = 10000
PRELOADED = ("analysis.fixtures.subject", "ntk_propulsion.training.methods", "peft")
FEWEST = 6  # rounds: the range of n values covers the median with probability 1 - 2**(1 - n)


@dataclass(frozen=True)
class Settings(Training):
    """Settings of the study."""

    examples: int = option(2, "Examples of the step whose gradients and state are weighed.")
    seeds: int = option(1, "Trainings to the target, each with other examples and order.")
    methods: tuple[str, ...] = option(
        ("full", "propulsion", *RATES), "What trains, by the names of tunings."
    )
    full_rate: float = option(5e-5, "Learning rate of full fine-tuning.")
    learning_rate: float = option(1e-3, "Learning rate of Propulsion (AdamW, constant).")
    length: int = option(64, "Tokens of each text in timed steps; to the target, at most so many.")
    rounds: int = option(6, "Rounds of timing and of memory, every method once in each.")
    span: float = option(1.5, "Seconds that each timing of steps lasts at least.")
    steps: int = option(32, "Most steps to the target.")
    every: int = option(8, "Steps between evaluations on the way to the target.")
    target: float = option(0.9, "The target, on the way from before to the best of full.")
    test_examples: int = option(160)

    def rate(self, method: str) -> float:
        """Return the learning rate of a method."""
        own = {"full": self.full_rate, "propulsion": self.learning_rate}
        return (own | RATES).get(method, self.learning_rate)

    def trainee(self, model: nn.Module, method: str, seed: int = 0) -> Trainee:
        """Return a model made ready to be trained by a method, at its learning rate."""
        how = {"degree": self.degree, "steps": self.steps, "seed": seed}
        return Trainee(model, method, self.rate(method), **how)


# -- measurements


def measure(settings: Settings, work: Work) -> list[Row]:
    """Count, time, weigh and race all methods, then sum up the rounds."""
    _check(settings)
    bench = _Bench(settings)
    rows = work.cell("sizes", bench.sizes)
    for turn in range(settings.rounds):
        rows += work.cell(f"time-{turn}", partial(bench.times, turn))
        rows += work.cell(f"memory-{turn}", partial(bench.memory, turn))
    for seed in seeds(settings):
        rows += work.cell(f"race-{seed}", partial(_race, settings, seed))
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
                "gradient_bytes": sum(map(_bytes, gradients)),
                "state_numbers": sum(t.numel() for t in moments),
                "state_bytes": sum(map(_bytes, state)),
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
        start, done = _now(self.settings.device), 0
        while done < 2 or time.perf_counter() - start < span:
            do()
            done += 1
            if done % 8 == 0:  # now and then: waiting for a GPU each time would slow it
                _now(self.settings.device)
        seconds = _now(self.settings.device) - start
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


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _now(device: str) -> float:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def memory_of(settings: Settings, task: Task, method: str, threads: int) -> Row:
    """Train on all of a task's training texts, a batch, in a process of its own; weigh that.

    Before the measurement all weights are read, one short text goes forward and a layer of two
    neurons takes a step, which brings up libraries but leaves no memory free that training could
    use unseen. Then the peak is taken over a few steps, above what was resident.

    Returns:
        ``weights_bytes``: of the model, with what the method adds. ``process_bytes``: how far the
        process rose. ``rise_bytes``: what training added; on a CPU the same, on CUDA by torch's
        own count.
        ``peak_bytes``: the weights with it.
    """
    torch.set_num_threads(threads)
    head = cast(Head, "random" if settings.head == "probe" else settings.head)
    loaded = load_model(settings.model, task, device=settings.device, head=head)
    model = loaded.model
    batch, labels = batch_of(loaded, task.train, pad_to=settings.length)
    trainee = settings.trainee(model, method)
    weights = sum(_bytes(t) for t in (*model.parameters(), *model.buffers()))
    for parameter in model.parameters():
        parameter.detach().sum()  # a file's pages come into memory when they are read
    trainee.forward({key: value[:1, :4] for key, value in batch.items()})
    _first_step(model.device)
    cuda, before = model.device.type == "cuda", 0
    if cuda:
        torch.cuda.reset_peak_memory_stats(model.device)
        before = torch.cuda.memory_allocated(model.device)
    meter = ProcessMemory()
    for _ in range(MEMORY_STEPS):
        trainee.step(batch, labels)
    process = rise = meter.rise()
    if cuda:
        rise = torch.cuda.max_memory_allocated(model.device) - before
    found = {"weights_bytes": weights, "process_bytes": process}
    return {**found, "rise_bytes": rise, "peak_bytes": weights + rise}


def _first_step(device: torch.device) -> None:
    layer = nn.Linear(2, 2, device=device)
    layer(torch.ones(1, 2, device=device)).sum().backward()
    torch.optim.AdamW(layer.parameters()).step()


def _race(settings: Settings, seed: int) -> list[Row]:
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
                    began = _now(settings.device)
                    trainee.step(batch, labels)
                    trainee.seconds += _now(settings.device) - began
            point = {"steps": steps.stop, "seconds": trainee.seconds, "value": at.metric(own)}
            rows.append({**about, "method": name, **point})
    return rows


def _devices(device: str) -> list[str]:
    return [device] if torch.device(device).type == "cuda" else []


def _drawn(train: Sequence[Example], size: int, steps: range) -> Iterator[list[Example]]:
    """Yield the examples of each step, from the first again when all were taken."""
    for step in steps:
        yield [train[(step * size + i) % len(train)] for i in range(size)]


# -- what follows from the measurements


def targets(rows: Sequence[Row], share: float) -> list[Row]:
    """Return when each method's metric first reached the target, by seed.

    The target lies so far on the way from before training to the best of full fine-tuning. There
    is none where full fine-tuning does not get above its start; it is not reached (None) where a
    method's metric stays below it.
    """
    races = [row for row in rows if row["kind"] == "race"]
    found: list[Row] = []
    for seed in dict.fromkeys(row["seed"] for row in races):
        own = [row for row in races if row["seed"] == seed]
        full = [row["value"] for row in own if row["method"] == "full"]
        if not full or not max(full) > full[0]:
            continue
        target = full[0] + share * (max(full) - full[0])
        for name in dict.fromkeys(row["method"] for row in own):
            there = (row for row in own if row["method"] == name and row["value"] >= target - 1e-9)
            first = next(there, {})
            when = {"steps": first.get("steps"), "seconds": first.get("seconds")}
            best = max(row["value"] for row in own if row["method"] == name)
            about = {"kind": "target", "method": name, "seed": seed, "value": target}
            found.append({**about, **when, "best": best})
    return found


QUANTITIES = {
    "size": ("parameters", "gradient_bytes", "state_bytes"),
    "time": ("step_seconds", "forward_seconds", "step_joules"),
    "memory": ("rise_bytes", "peak_bytes"),
}


def summary(rows: Sequence[Row], settings: Settings) -> list[Row]:
    """Return the median of each method's rounds, with the least and the greatest."""
    found: list[Row] = []
    for name in settings.methods:
        for kind, quantities in QUANTITIES.items():
            for quantity in quantities:
                values = list(by_round(rows, kind, name, quantity).values())
                if values:
                    ends = {"low": min(values), "high": max(values), "rounds": len(values)}
                    value = {"quantity": quantity, "value": float(np.median(values))}
                    found.append({"kind": "summary", "method": name, **value, **ends})
    return found


def by_round(rows: Sequence[Row], kind: str, method: str, quantity: str) -> dict[int, float]:
    """Return a quantity of a method by round; those without it are left out."""
    return {
        row.get("round") or 0: float(row[quantity])
        for row in rows
        if row["kind"] == kind and row["method"] == method and row.get(quantity) is not None
    }


Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]


def ratio_of_medians(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the ratio of medians over the last axis."""
    return np.median(one, axis=-1) / np.median(other, axis=-1)


def median_of_ratios(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the median over the last axis of ratios, round by round."""
    return np.median(one / other, axis=-1)


def compared(
    rows: Sequence[Row], kind: str, quantity: str, other: str, statistic: Statistic
) -> Estimate | None:
    """Return Propulsion's quantity over another method's, with its 95% bootstrap over rounds.

    Both are resampled together, by round. Fewer than `FEWEST` rounds bracket no median at 95%:
    the interval is infinite. None where either was not measured.
    """
    ours, theirs = (by_round(rows, kind, name, quantity) for name in ("propulsion", other))
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        return None
    a, b = (np.array([values[turn] for turn in shared]) for values in (ours, theirs))
    value = float(statistic(a, b))
    if len(shared) < FEWEST:
        return Estimate(value, -np.inf, np.inf)
    picks = np.random.default_rng(0).integers(len(shared), size=(RESAMPLES, len(shared)))
    low, high = np.percentile(statistic(a[picks], b[picks]), [2.5, 97.5])
    return Estimate(value, float(low), float(high))


def judge(rows: Sequence[Row], settings: Settings) -> list[Verdict]:
    """Judge E3 and O2."""
    told = about(rows, settings)
    others = [name for name in settings.methods if name in RATES]

    def ratios(quantity: str) -> dict[str, Estimate]:
        found = {n: compared(rows, "memory", quantity, n, ratio_of_medians) for n in others}
        return {words.tuning(name): e for name, e in found.items() if e is not None}

    peaks, rises = ratios("peak_bytes"), ratios("rise_bytes")
    text = (
        f"peak memory with the model's weights, Propulsion's over each other's: {_listed(peaks)}; "
        f"what training adds to the loaded model: {_listed(rises)}. A mask trains RowColumn, which "
        "saves no memory"
    )
    step = compared(rows, "time", "step_seconds", "lora", median_of_ratios)
    time_text = "a step of Propulsion over one of LoRA: " + (str(step) if step else "not measured")
    return [
        verdict("E3", within(peaks, PAPERS, upper_only=True), text, told),
        verdict(
            "O2", within({"lora": step} if step else {}, 1.0, upper_only=True), time_text, told
        ),
    ]


def _listed(found: Mapping[str, Estimate]) -> str:
    return ", ".join(f"{name} {ratio}" for name, ratio in found.items()) or "none"


def about(rows: Sequence[Row], settings: Settings) -> str:
    """Say what the numbers rest on."""
    hardware = next((row["name"] for row in rows if row["kind"] == "hardware"), "")
    rates = ", ".join(f"{words.tuning(n)} {settings.rate(n):g}" for n in settings.methods)
    return (
        f"{hardware}; {settings.model}, {settings.task_name}, {settings.head} head, "
        f"degree {settings.degree}, AdamW, batches of "
        f"{settings.batch_size} x {settings.length} tokens, {settings.rounds} rounds; learning "
        f"rates: {rates}"
    )


def check(rows: Sequence[Row], settings: Settings) -> list[Check]:
    """Check what must hold of the counts, whatever they are."""
    sizes = {row["method"]: row for row in rows if row["kind"] == "size"}

    def failing(wrong: Callable[[Row], bool]) -> list[str]:
        return [name for name, row in sizes.items() if wrong(row)]

    full = sizes.get("full")
    partial_full = full is not None and full["parameters"] != full["model_parameters"]
    found = {
        "full fine-tuning trains all parameters": ["full"] if partial_full else [],
        "AdamW keeps two numbers for every number that has a gradient": failing(
            lambda row: row["state_numbers"] != 2 * row["gradient_numbers"]
        ),
        "no more numbers move in a step than are counted as trained": failing(
            lambda row: not 0 < row["moved"] <= row["parameters"]
        ),
    }
    return [
        Check(name, not wrong, f"not so of: {', '.join(wrong) or 'none'}")
        for name, wrong in found.items()
    ]


def draw(rows: Sequence[Row], settings: Settings) -> Mapping[str, Figure]:
    """Draw what each method costs."""
    return {"figure": cost_figure.draw(rows, settings.methods, about(rows, settings))}


QUICK: dict[str, Any] = {
    "batch_size": 4,
    "length": 16,
    "rounds": 1,
    "span": 0.1,
    "steps": 2,
    "every": 1,
    "probe_examples": 60,
    "test_examples": 24,
}
STUDY = Study(
    name="cost",
    question="What does training by each method cost in numbers, memory, time and energy?",
    settings=Settings,
    quick=QUICK,
    measure=measure,
    judge=judge,
    draw=draw,
    check=check,
)
