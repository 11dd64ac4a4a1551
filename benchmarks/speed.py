"""Speed of the full kernel against peers and against the floor, in one interleaved run.

python -m benchmarks.speed [--examples 32] [--tokens 24] [--rounds 5] [--no-peers] [--device cuda]
On a GPU the lower precisions are timed too, each with its measured error.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import click
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from benchmarks.floor import passes, products
from benchmarks.models import minilm, random_words
from benchmarks.timing import Contenders, interleaved, median, spread, where_and_when
from ntk_propulsion import empirical_ntk
from ntk_propulsion.kernels.tunings import TUNINGS

ALL = [name for name in TUNINGS if name != "trainable"]


def additive(mask: Tensor) -> Tensor:
    """The 4-D additive mask, without which vmap over a whole transformers model raises."""
    return (1.0 - mask[:, None, None, :].float()) * torch.finfo(torch.float32).min


def jacobian_contraction(model: nn.Module, batch: dict[str, Tensor], at_once: int = 8) -> Tensor:
    """torch.func's way: vmap(jacrev), some examples at a time, then the contraction."""
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    mask = additive(batch["attention_mask"])

    def logits(values: dict[str, Tensor], ids: Tensor, m: Tensor) -> Tensor:
        inputs = {"input_ids": ids[None], "attention_mask": m[None]}
        return functional_call(model, values, (), inputs).logits[0]

    jacobian = vmap(jacrev(logits), in_dims=(None, 0, 0))
    rows: dict[str, list[Tensor]] = {name: [] for name in parameters}
    for start in range(0, len(mask), at_once):
        chunk = slice(start, start + at_once)
        found = jacobian(parameters, batch["input_ids"][chunk], mask[chunk])
        for name, j in found.items():
            rows[name].append(j.flatten(2).flatten(0, 1))
    size = sum(len(j) for j in next(iter(rows.values())))
    kernel = torch.zeros(size, size, device=mask.device)
    for name in parameters:
        j = torch.cat(rows.pop(name))
        kernel += j @ j.T
    return kernel


def torchjd_gramian(model: nn.Module) -> Callable[[dict[str, Tensor]], Tensor]:
    """TorchJD's engine, which hooks the model for good: give it a copy."""
    from torchjd.autogram import Engine

    engine = Engine(model, batch_dim=0)

    def run(batch: dict[str, Tensor]) -> Tensor:
        ids, mask = batch["input_ids"], additive(batch["attention_mask"])
        # with the positions that a model makes for itself, (1, T), the engine raises
        positions = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)
        out = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits
        return engine.compute_gramian(out).reshape(out.numel(), out.numel())

    return run


def contenders(
    model: nn.Module, batch: dict[str, Tensor], peers: bool
) -> tuple[Contenders, dict[str, Tensor]]:
    """Everything that is timed, and the peers' kernels, to check that all do the same."""
    timed: dict[str, Callable[[], object]] = {
        "passes": passes(model, batch),
        "products": products(model, batch, 2),
        "full, no certificate": lambda: empirical_ntk(model, batch, certificate=False),
        "full": lambda: empirical_ntk(model, batch),
        "all tunings": lambda: empirical_ntk(model, batch, ALL),
    }
    if batch["input_ids"].is_cuda:
        for precision in ("tf32", "bf16"):
            timed[f"full, {precision}"] = partial(empirical_ntk, model, batch, precision=precision)
    found: dict[str, Tensor] = {}
    if peers:
        gramian = torchjd_gramian(minilm().to(batch["input_ids"].device))

        def contraction() -> None:
            found["torch.func vmap(jacrev)"] = jacobian_contraction(model, batch)

        def engine() -> None:
            found["TorchJD Engine"] = gramian(batch)

        timed |= {"torch.func vmap(jacrev)": contraction, "TorchJD Engine": engine}
    return timed, found


@click.command()
@click.option("--examples", default=32)
@click.option("--tokens", default=24)
@click.option("--rounds", default=5)
@click.option("--peers/--no-peers", default=True)
@click.option("--device", default="cpu")
def main(examples: int, tokens: int, rounds: int, peers: bool, device: str) -> None:
    """Time the full kernel of MiniLM with two logits, all parameters."""
    model = minilm().to(device)
    batch = {name: t.to(device) for name, t in random_words(examples, tokens).items()}
    timed, found = contenders(model, batch, peers)
    seconds = interleaved(timed, rounds)
    ours = empirical_ntk(model, batch)["full"].matrix
    floor = median(seconds["passes"]) + median(seconds["products"])
    full = median(seconds["full"])
    print(f"{where_and_when()}\nMiniLM, N = {examples}, T = {tokens}, O = 2, {rounds} rounds\n")
    print("| what | seconds: median (range) | times `full` | times the floor |")
    print("|---|---|---|---|")
    for name, values in seconds.items():
        own = median(values)
        print(f"| {name} | {spread(values)} | {own / full:.2f} | {own / floor:.2f} |")
    for precision in ("tf32", "bf16") if device != "cpu" else ():
        error = empirical_ntk(model, batch, precision=precision).precision_error
        print(f"\n{precision}: measured error of the products {error:.1e}.")
    for name, kernel in found.items():
        error = float((kernel - ours).norm() / ours.norm())
        print(f"\n{name} agrees with `full` to {error:.1e} (relative Frobenius).")


if __name__ == "__main__":
    main()
