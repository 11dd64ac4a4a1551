"""How the time grows with N, T, O and depth, against the count of operations.

python -m benchmarks.growth [--rounds 3]: prints a table and draws benchmarks/growth.png.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.models import bert, random_words
from benchmarks.timing import interleaved, median, where_and_when
from ntk_propulsion import empirical_ntk
from ntk_propulsion.figures import style

WIDTH, INNER = 384, 1536
LAYERS = ((WIDTH, WIDTH),) * 4 + ((INNER, WIDTH), (WIDTH, INNER))


@dataclass(frozen=True)
class Case:
    """A size: N examples of T tokens, O outputs, a number of encoder layers."""

    n: int = 32
    t: int = 24
    o: int = 2
    depth: int = 6

    def operations(self) -> float:
        """Multiply-adds, twice: passes, forming or token products, and half the Gram products."""
        weights = self.depth * sum(a * b for a, b in LAYERS)
        passes = 2 * self.n * self.t * weights * (1 + self.o + 2)  # + the certificate's backward
        gram = 0.0
        for d_out, d_in in LAYERS:
            neurons = self.n * self.o**2 * d_out * d_in + 2 * self.t * self.o * d_out * d_in
            tokens = self.n * self.t**2 * (d_in + self.o**2 * d_out)
            gram += self.depth * self.n * min(neurons, tokens)
        return passes + gram


SWEEPS: dict[str, list[Any]] = {
    "n": [8, 16, 32, 64, 128],
    "t": [8, 16, 32, 64, 128],
    "o": [1, 2, 4, 8],
    "depth": [1, 2, 4, 8],
}
NAMES = {"n": "N, examples", "t": "T, tokens", "o": "O, outputs", "depth": "encoder layers"}


def first_outputs(o: int) -> Any:
    """The first o features of the pooled output: any number of outputs from one model."""

    def outputs(output: Any) -> Tensor:
        return output.hidden_states[-1][:, 0, :o]

    return outputs


def run(case: Case) -> Any:
    """Return what computes the full kernel of this size."""
    model, batch = bert(case.depth), random_words(case.n, case.t)
    model.config.output_hidden_states = True
    return lambda: empirical_ntk(model, batch, outputs=first_outputs(case.o))


Row = tuple[str, int, float, float]  # what grows, its size, seconds, GFLOP counted


def draw(rows: list[Row]) -> Figure:
    """Draw seconds against size, beside the count at the best rate of each sweep."""
    figure = Figure(figsize=(12, 3.9), layout="constrained")
    figure.suptitle(
        f"Seconds of the full kernel, certificate included: BERT of width {WIDTH}, float32; "
        "elsewhere N = 32, T = 24, O = 2, 6 layers"
    )
    for ax, (what, name) in zip(figure.subplots(1, len(NAMES)), NAMES.items(), strict=True):
        _, sizes, seconds, counted = zip(*(row for row in rows if row[0] == what), strict=True)
        rate = max(c / s for c, s in zip(counted, seconds, strict=True))
        ax.loglog(sizes, seconds, "o-", label="measured")
        ax.loglog(sizes, [c / rate for c in counted], "--", label=f"count at {rate:.0f} GFLOP/s")
        ax.set(xlabel=name, ylabel="seconds (log scale)")
        ax.set_xticks(sizes, [str(size) for size in sizes])
        ax.minorticks_off()
        ax.legend()
    return figure


@click.command()
@click.option("--rounds", default=3)
def main(rounds: int) -> None:
    """Time every size, the others at N = 32, T = 24, O = 2 and 6 layers."""
    print(f"{where_and_when()}\nBERT of width {WIDTH}, full kernel with certificate\n")
    print("| what | size | seconds | GFLOP counted | GFLOP/s |\n|---|---|---|---|---|")
    rows: list[Row] = []
    for what, sizes in SWEEPS.items():
        cases = {str(size): replace(Case(), **{what: size}) for size in sizes}
        timed = interleaved({name: run(case) for name, case in cases.items()}, rounds)
        for size, (name, case) in zip(sizes, cases.items(), strict=True):
            seconds, counted = median(timed[name]), case.operations() / 1e9
            rows.append((what, size, seconds, counted))
            rate = counted / seconds
            print(f"| {NAMES[what]} | {size} | {seconds:.3f} | {counted:.1f} | {rate:.0f} |")
    style.save(draw(rows), Path(__file__).parent / "growth.png")


if __name__ == "__main__":
    main()
