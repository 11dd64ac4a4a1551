"""Small random models and batches from a seed: all choices come from one `random.Random`."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint

from ntk_propulsion.kernels.batch import move
from ntk_propulsion.kernels.outputs import Loss
from tests.kernels import random_tricks
from tests.kernels.random_mixing import MIXING, RANDOM
from tests.kernels.random_pieces import Writer
from tests.kernels.random_tricks import chain

VOCABULARY = 7
SCOPE = {
    "torch": torch,
    "nn": nn,
    "F": F,
    "P": parametrizations,
    "prune": prune,
    "register_parametrization": parametrize.register_parametrization,
    "pack_padded_sequence": pack_padded_sequence,
    "pad_packed_sequence": pad_packed_sequence,
    "checkpoint": checkpoint,
    "SimpleNamespace": SimpleNamespace,
    **{name: getattr(random_tricks, name) for name in random_tricks.NAMES},
}


@dataclass(frozen=True)
class Case:
    """A random model with all that a kernel's caller says.

    Attributes:
        source: Of the classes; the model is ``Net()``.
        marks: "mixing", "random", "closure"; "endless" where an example is not finite.
        weights: Seed of the weights and of the batch.
        batch: Makes the batch of some examples.
        n: Examples.
        other: Examples of the columns, 0 for a symmetric kernel.
        outputs: As `empirical_ntk` takes them.
        tunings: Their names: "full", "bitfit", "head", "parameters", "propulsion", "lora".
        keywords: The others of `empirical_ntk`.
        narrow: Whether the model is in float32, and its kernel in float64, so on a copy.
        faded: What one parameter is multiplied by: a branch that hardly counts, or a zero head.
    """

    source: str
    marks: frozenset[str]
    weights: int
    batch: Callable[[int], Any]
    n: int
    other: int
    outputs: Any
    tunings: tuple[str, ...]
    keywords: Mapping[str, Any]
    narrow: bool
    faded: float

    def model(self) -> nn.Module:
        """Return the model: the same numbers at each call."""
        with seeded(self.weights), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scope: dict[str, Any] = dict(SCOPE)
            exec(compile(self.source, "<random model>", "exec"), scope)
            model: nn.Module = scope["Net"]().double()
            parameters = list(model.parameters())
            with torch.no_grad():
                for p in parameters:
                    p.add_(torch.randn_like(p) * 0.2)
                for buffer in model.buffers():
                    if buffer.is_floating_point() and buffer.dim() == 1:
                        buffer.mul_(torch.rand_like(buffer) + 0.5)
                last = self.weights % 3 == 0
                parameters[-1 if last else self.weights % len(parameters)].mul_(self.faded)
            for i, module in enumerate(model.modules()):
                module.training = bool((self.weights >> i % 30) & 1)
        return model.float() if self.narrow else model

    def exact_model(self) -> nn.Module:
        """Return the same in float64, not a copy but itself."""
        return self.model().double()

    def data(self) -> Any:
        """Return the rows' batch."""
        return self._examples(self.n, 1)

    def columns(self) -> Any:
        """Return the columns' batch, if there is another."""
        return self._examples(self.other, 2) if self.other else None

    def _examples(self, n: int, draw: int) -> Any:
        with seeded(self.weights + draw):
            batch = self.batch(n)
        return move(batch, torch.device("cpu"), torch.float32) if self.narrow else batch

    def exact(self, batch: Any) -> Any:
        """Return a batch in float64."""
        return move(batch, torch.device("cpu"), torch.float64)

    def __str__(self) -> str:
        return (
            f"{self.source}\n# weights {self.weights}, n {self.n}, other {self.other}, outputs "
            f"{self.outputs}, tunings {self.tunings}, {dict(self.keywords)}, narrow {self.narrow}, "
            f"faded {self.faded}, "
            f"marks {sorted(self.marks)}"
        )


def random_case(rng: random.Random) -> Case:
    """Return a case; all choices are the generator's."""
    w = Writer(rng, t=rng.randint(1, 4), d=w_size(rng))
    signature, batch, h = _front(w)
    h = chain(w, h, rng.randint(0, 4))
    trouble = rng.random()
    if trouble < 0.08:
        h = rng.choice(MIXING if trouble < 0.06 else RANDOM)(w, h)
        w.marks.add("mixing" if trouble < 0.06 else "random")
        h = chain(w, h, rng.randint(0, 1))
    returned, o, outputs = _end(w, h)
    tunings: tuple[str, ...] = rng.choice(
        [("full",)] * 8 + [("bitfit",), ("head",), ("parameters",)]
    )
    if rng.random() < 0.15:
        tunings = (*tunings, *rng.sample(["propulsion", "lora"], rng.randint(1, 2)))
    keywords: dict[str, Any] = {"per_module": rng.random() < 0.8}
    if rng.random() < 0.1:
        keywords["strict"] = True
    narrow = rng.random() < 0.08
    if narrow:
        keywords["dtype"] = "float64"
    n = rng.randint(1, 6)
    if rng.random() < 0.05 and o > 1 and outputs is not _entry:
        outputs = Loss(torch.tensor([rng.randrange(o) for _ in range(n)]))
    labelled = isinstance(outputs, Loss)
    return Case(
        "\n".join([*reversed(w.classes), w.source(signature, returned)]),
        frozenset(w.marks),
        rng.randrange(2**30),
        batch,
        n,
        rng.randint(1, 4) if rng.random() < 0.15 and not labelled else 0,
        outputs,
        tunings,
        keywords,
        narrow,
        rng.choice([1.0] * 17 + [1e-3, 1e-6, 0.0]),
    )


def w_size(rng: random.Random) -> int:
    """Return a width."""
    return rng.randint(2, 4)


def _front(w: Writer) -> tuple[str, Callable[[int], Any], str]:
    """Write what makes a state of the batch: signature, batch of n examples, state."""
    t, d = w.t, w.d
    alike, endless = w.coin(0.05), w.coin(0.02)  # the first two equal, the last one not finite

    def floats(n: int, *shape: int) -> Tensor:
        x = torch.randn(n, *shape, dtype=torch.float64)
        if endless:
            x[-1] = float("nan")
        return torch.cat([x[:1], x[:1], x[2:]]) if alike and n > 1 else x

    def ids(n: int) -> Tensor:
        return torch.randint(0, VOCABULARY, (n, t))

    if endless:
        w.marks.add("endless")
    kind = w.pick("x", "x", "vector", "ids", "ids", "masked", "pair", "image", "plain", "bag")
    if kind == "x":
        return "x", lambda n: floats(n, t, d), "x"
    if kind == "vector":
        w.t = 1
        return "x", lambda n: floats(n, d), w.var("x.unsqueeze(1)")
    if kind == "pair":
        return "x, y", lambda n: (floats(n, t, d), floats(n, d)), w.var("x * y[:, None]")
    if kind == "plain":
        state = w.var("x * scale if flag else x")
        batch = {"scale": 0.5, "flag": w.coin(), "nothing": None}
        return "x, scale, flag, nothing=None", lambda n: {"x": floats(n, t, d), **batch}, state
    if kind == "image":
        w.t, side = 4, 2
        m = w.module(f"nn.Conv2d(2, {d}, 3, stride=2, padding=1)")
        state = w.var(f"torch.tanh({m}(x)).flatten(2).transpose(1, 2)")
        return "x", lambda n: floats(n, 2, 2 * side, 2 * side), state
    if kind == "bag":
        w.t = 1
        m = w.module(f"nn.EmbeddingBag({VOCABULARY}, {d}, mode={w.pick('sum', 'mean')!r})")
        return "ids", ids, w.var(f"{m}(ids).unsqueeze(1)")
    table = w.module(f"nn.Embedding({VOCABULARY}, {d}, padding_idx={w.pick('None', '0')})")
    if kind == "ids":
        return "ids", ids, w.var(f"{table}(ids)")
    state = w.var(f"{table}(ids) * mask[..., None]")

    def padded(n: int) -> dict[str, Tensor]:
        return {"ids": ids(n), "mask": torch.arange(t) < torch.randint(1, t + 1, (n, 1))}

    return "ids, mask", padded, state


def _end(w: Writer, h: str) -> tuple[str, int, Any]:
    """Write the head: what is returned, O, and the outputs that suit it."""
    o = w.rng.randint(1, 3)
    pool = w.pick("mean(1)", "sum(1)", "select(1, -1)", "select(1, 0)", "amax(1)", "flatten(1)")
    z, w.d = w.var(f"{h}.{pool}"), w.d * (w.t if pool.startswith("fl") else 1)
    y = w.var(f"{z} @ {w.parameter(w.d, o)}" if w.coin(0.1) else f"{w.linear(o)}({z})")
    if w.coin(0.2):
        y = w.var(
            w.pick(f"torch.tanh({y})", f"{y} * {w.parameter()}", f"{y} - {y}.logsumexp(1, True)")
        )
    kind = w.pick("plain", "plain", "plain", "tuple", "named", "dict", "flat")
    outputs: Any = w.rng.choice(["logits"] * 6 + ["sum", 0])
    if kind == "flat" and o == 1:
        return f"{y}.squeeze(1)", o, outputs
    if kind == "tuple":
        return f"({y}, {h})", o, outputs
    if kind == "named":
        return f"SimpleNamespace(logits={y}, hidden={h})", o, outputs
    if kind == "dict":
        return f"{{'y': {y}}}", o, _entry
    return y, o, outputs


def _entry(output: Any) -> Tensor:
    return output["y"] * 2


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from a seed, and leave the caller's generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
