"""The concentration bounds under test: printed and with Gamma2, Gaussian and pretrained (T2).

T2a needs no network: a pair x, y spans a plane, and W (d x d_in) with i.i.d. N(0, 1/d) entries is
Gaussian there too, whatever d_in. With x = e1 and y = c e1 + s e2, |W e1|**2 is chi-squared over d
and (W e1)'(W e2) normal given it: two numbers a draw give (Wx)'(Wy) exactly.

T2c to T2e ask about Propulsion's own projection. K_P[r, r] / k**2 = sum_j (<w_j, G_j> + b_j g_j)**2
over a layer's neurons. With Gaussian w_j and b_j each term is N(0, a_j) squared, a_j = sigma_w**2
|G_j|**2 + sigma_b**2 g_j**2: the energies a_j are all that a redraw of a diagonal entry needs.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from analysis.bounds.figure import ENERGIES, GAUSSIAN, OWN, PRETRAINED, PRINTED, TRAINED
from analysis.fixtures.subject import Subject, subject
from analysis.framework import options
from analysis.framework.options import Training
from analysis.framework.study import Work, seeds
from analysis.framework.tables import Row
from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels import visit_layers
from ntk_propulsion.kernels.blocks import EmbeddingBlock, LayerUse, LinearBlock
from ntk_propulsion.kernels.redraws import mean_square
from ntk_propulsion.models.roles import role_of
from ntk_propulsion.runs.options import option
from ntk_propulsion.theory.bounds import (
    diagonal_failure,
    gamma2,
    gamma_inf,
    inner_product_coverage,
    jl_failure,
)

EXAMPLE = "example"
SAMPLED = (GAUSSIAN, PRINTED, OWN)  # their failures are counted over independent draws
CHUNK = 500

# A worked example: 768 neurons with even and with uneven gradient energy, eps = 0.2.
EXAMPLE_WIDTH, EXAMPLE_EPS = 768, 0.2
EXAMPLES = {"even rows": 1.0, "rows decaying as 0.97**j": 0.97}


@dataclass(frozen=True)
class Settings(options.Settings):
    """Settings of the study."""

    examples: int = option(64, "N, texts: one token of each for T2b, all of them for T2c to T2e.")
    seeds: int = option(1, "How often the layers are measured, each time on other texts.")
    task: str = option("", unset="sst2 with --data, else rotten-tomatoes")
    head: str = option("probe")
    probe_examples: int = option(1000)
    widths: tuple[int, ...] = option((64, 128, 256, 512, 1024, 2048, 4096), "d of T2a.")
    cosines: tuple[float, ...] = option((0.0, 0.5, 1.0), "x'y of T2a's fixed pairs.")
    eps: tuple[float, ...] = option((0.05, 0.1, 0.2, 0.4, 0.667), "Relative errors asked about.")
    draws: int = option(200_000, "Weights drawn for each pair of T2a.")
    redraws: int = option(2000, "Redraws of each layer's weights.")


def gaussian_errors(width: int, cosine: float, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Return (Wx)'(Wy) - x'y of a unit pair for independent draws of W, shape (draws,)."""
    along = rng.chisquare(width, draws) / width
    across = np.sqrt(along / width) * rng.standard_normal(draws)
    return cosine * (along - 1) + math.sqrt(1 - cosine**2) * across


def diagonal_errors(energies: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Return K_P[r, r] / E K_P[r, r] - 1 under redraws of Gaussian weights.

    The entries of one redraw share each neuron's draw. Each entry's distribution is exact; how
    they depend on each other is not that of one weight, and nothing here rests on it.

    Args:
        energies: a (R, d_out), no row zero.
        draws: How many redraws.
        rng: The source of randomness.

    Returns:
        Shape (draws, R).
    """
    shares = (energies / energies.sum(axis=1, keepdims=True)).T
    sizes = [min(CHUNK, draws - start) for start in range(0, draws, CHUNK)]
    found = [rng.standard_normal((size, len(shares))) ** 2 @ shares - 1 for size in sizes]
    return np.concatenate(found)


@dataclass(frozen=True)
class Projection:
    """A layer as a projection of its rows of the Jacobian.

    Attributes:
        energies: a (R, d_out), the expected square of each neuron's projection under Gaussian
            weights of the layer's own sigma; rows that the layer does not reach are left out.
        diagonal: K_P[r, r] / k**2 of the weights as they are, (R,).
    """

    energies: np.ndarray
    diagonal: np.ndarray

    @property
    def errors(self) -> np.ndarray:
        """Return K_P[r, r] / E K_P[r, r] - 1 of the weights as they are, (R,)."""
        return self.diagonal / self.energies.sum(axis=1) - 1


def projection(layer: nn.Module, uses: Sequence[LayerUse]) -> Projection:
    """Return a layer's projection, all its calls together.

    With tokens' Gram matrix M = sigma_w**2 X X' + sigma_b**2 (of an embedding, sigma_w**2 where two
    tokens are the same word), a_j = D_j' M D_j: no Jacobian block is ever formed.
    """
    bias = getattr(layer, "bias", None)
    sigma2 = mean_square(layer.get_parameter("weight"))
    shift2 = 0.0 if bias is None else mean_square(bias)
    gram = sigma2 * _token_gram(uses) + shift2
    y = torch.cat([_output(use) for use in uses], 1).double()
    energies, projected = [], []
    for o in range(len(uses[0].d)):
        d = torch.cat([_cotangent(use, o) for use in uses], 1).double()
        energies.append((d * (gram @ d)).sum(1).clamp_min(0))
        projected.append((d * y).sum(1))
    a, z = (torch.stack(part, 1).flatten(0, 1).cpu().numpy() for part in (energies, projected))
    reached = a.sum(axis=1) > 0
    return Projection(a[reached], (z[reached] ** 2).sum(axis=1))


def _token_gram(uses: Sequence[LayerUse]) -> Tensor:
    """Inner products of an example's tokens as the weight sees them, (N, T, T), T over all uses."""
    if isinstance(uses[0].block, EmbeddingBlock):
        ids = torch.cat([use.block.ids for use in uses if isinstance(use.block, EmbeddingBlock)], 1)
        return (ids[:, :, None] == ids[:, None, :]).double()
    x = torch.cat([use.block.x for use in uses if isinstance(use.block, LinearBlock)], 1).double()
    return x @ x.transpose(1, 2)


def _cotangent(use: LayerUse, o: int) -> Tensor:
    return use.block.cotangents(o) if isinstance(use.block, EmbeddingBlock) else use.d[o]


def _output(use: LayerUse) -> Tensor:
    assert use.y is not None
    return use.y


def measure(settings: Settings, work: Work) -> list[Row]:
    """Count failures: by width, in the example, and in every layer of the model."""
    _check(settings)
    rows: list[Row] = []
    for width in settings.widths:
        rows += work.cell(f"width-{width}", partial(_width_rows, settings, width))
    rows += work.cell("example", partial(_example_rows, settings))
    for seed in seeds(settings):
        rows += work.cell(f"layers-{seed}", partial(_layers_rows, settings, seed))
    return rows


def _check(settings: Settings) -> None:
    if not all(-1 <= cosine <= 1 for cosine in settings.cosines):
        raise InputError(f"--cosines {settings.cosines}: give numbers from -1 to 1")
    for name in ("draws", "redraws"):
        if getattr(settings, name) < 1:
            raise InputError(f"--{name} {getattr(settings, name)}: give 1 or more")


def _cell(part: str, bound: float, observed: float, trials: int, **about: Any) -> Row:
    """Return one cell: an observed share of failures beside what a bound allows.

    Of a layer the share is over redraws and diagonal entries. The binomial counts redraws, for the
    entries of one are not independent: the failures are the share of them, rounded down.
    """
    counted = {"failures": math.floor(observed * trials + 1e-6)} if part in SAMPLED else {}
    told = {"trials": trials, **counted, "observed": observed, "bound": bound}
    return {"part": part, **about, **told, "vacuous": bound >= 1}


def _width_rows(settings: Settings, width: int) -> list[Row]:
    rng = np.random.default_rng([0, width])
    rows = []
    for cosine in settings.cosines:
        errors = np.abs(gaussian_errors(width, cosine, settings.draws, rng))
        for eps in settings.eps:
            share = float(np.mean(errors > eps))
            about = {"width": width, "cosine": cosine, "eps": eps}
            rows.append(_cell(GAUSSIAN, jl_failure(eps, width), share, settings.draws, **about))
    return rows


def _example_rows(settings: Settings) -> list[Row]:
    rng = np.random.default_rng(1)
    rows = []
    for name, decay in EXAMPLES.items():
        energies = decay ** np.arange(EXAMPLE_WIDTH)[None]
        failed = np.abs(diagonal_errors(energies, settings.draws, rng)) >= EXAMPLE_EPS
        bound = float(diagonal_failure(EXAMPLE_EPS, energies)[0])
        about = {"layer": name, "width": EXAMPLE_WIDTH, "eps": EXAMPLE_EPS}
        rows.append(
            _cell(EXAMPLE, bound, float(failed.mean()), settings.draws, **about)
            | {
                "printed": jl_failure(EXAMPLE_EPS, EXAMPLE_WIDTH),
                "gamma2": float(gamma2(energies)[0]),
            }
        )
    return rows


def _layers_rows(settings: Settings, seed: int) -> list[Row]:
    """Return the rows of every scaled layer, on one draw of texts."""
    at = _subject(settings, seed)
    rows: list[Row] = []

    def visit(name: str, uses: list[LayerUse]) -> None:
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        layer = at.model.get_submodule(name)
        about = {"seed": seed, "layer": name, "role": role_of(name)}
        found = projection(layer, uses)
        if len(found.energies):
            rows.extend(_projection_rows(found, settings, rng, about))
        if isinstance(uses[0].block, LinearBlock):
            rows.extend(_pair_rows(uses[0], _some_tokens(uses[0], at, rng), settings, about))

    visit_layers(at.model, at.batch, visit, outputs=settings.outputs, options=at.options)
    return rows


def _subject(settings: Settings, seed: int) -> Subject:
    """Return model and texts; nothing is trained but the head."""
    known = {part.name for part in fields(Training)} & {part.name for part in fields(settings)}
    common = Training(**{name: getattr(settings, name) for name in known})
    return subject(common, seed, train=False)


def _some_tokens(use: LayerUse, at: Subject, rng: np.random.Generator) -> np.ndarray:
    """Return the layer's input at one token of each text, no padding, (N, d_in)."""
    assert isinstance(use.block, LinearBlock)
    x = use.block.x
    tokens = np.array(at.materials.encoding.tokens)
    if x.shape[1] != next(iter(at.batch.values())).shape[1]:  # behind a pooling
        tokens = np.full(len(x), x.shape[1])
    picked = x[torch.arange(len(x)), torch.as_tensor(rng.integers(tokens))].double().cpu().numpy()
    return picked[np.abs(picked).max(axis=1) > 0]


def _pair_rows(use: LayerUse, inputs: np.ndarray, settings: Settings, about: Row) -> list[Row]:
    """Compare the pretrained weight's inner products with the printed bound: T2b.

    Beside the judged share stands that of another normalisation, which the paper's silence allows:
    W scaled so that these inputs keep their mean square length.
    """
    if len(inputs) < 2:
        return []
    weight = use.weight.double().cpu().numpy()
    unit = inputs / np.linalg.norm(inputs, axis=1, keepdims=True)
    mean_kept = float(np.mean((unit @ weight.T) ** 2))
    rows = []
    for eps in settings.eps:
        found = inner_product_coverage(weight, inputs, eps)
        kept = inner_product_coverage(weight, inputs, eps, mean_kept)
        where = about | {"width": len(weight), "eps": eps}
        bound = jl_failure(eps, len(weight))
        more = {"worst_error": found.worst, "observed_lengths_kept": 1 - kept.covered}
        rows.append(_cell(PRETRAINED, bound, 1 - found.covered, found.pairs, **where) | more)
    return rows


def _projection_rows(
    found: Projection, settings: Settings, rng: np.random.Generator, about: Row
) -> list[Row]:
    """Compare diagonal entries under redraws and under the weights as they are: T2c to T2e."""
    entries, width = found.energies.shape
    about = about | {"width": width}
    redrawn = diagonal_errors(found.energies, settings.redraws, rng)
    rows = [about | _energies(found, redrawn)]
    for eps in settings.eps:
        failed = float(np.mean(np.abs(redrawn) >= eps))
        off = float(np.mean(np.abs(found.errors) >= eps))
        # Each entry has its own bound, and a probability is at most 1.
        own = float(np.minimum(1, diagonal_failure(eps, found.energies)).mean())
        where = about | {"eps": eps}
        rows += [
            _cell(PRINTED, jl_failure(eps, width), failed, settings.redraws, **where),
            _cell(OWN, own, failed, settings.redraws, **where),
            _cell(TRAINED, own, off, entries, **where),
        ]
    return rows


def _energies(found: Projection, redrawn: np.ndarray) -> Row:
    """Return how even a layer's gradient energy is, and the errors that follow from it."""
    many = gamma2(found.energies)
    squares = np.mean(redrawn**2, axis=1)
    return {
        "part": ENERGIES,
        "gamma2": float(np.median(many)),
        "gamma2_min": float(many.min()),
        "gamma2_max": float(many.max()),
        "gamma_inf": float(np.median(gamma_inf(found.energies))),
        "rms_predicted": float(np.sqrt(np.mean(2 / many))),
        "rms_redraws": float(np.sqrt(np.mean(squares))),
        "rms_redraws_se": float(
            squares.std() / len(squares) ** 0.5 / (2 * np.mean(squares) ** 0.5)
        ),
        "rms_trained": float(np.sqrt(np.mean(found.errors**2))),
        "mean_error_trained": float(np.mean(found.errors)),
        "rms_trained_best_mean": float(np.std(found.errors) / abs(1 + np.mean(found.errors))),
    }
