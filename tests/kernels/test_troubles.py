"""Each trouble gives autograd's kernel or a line that says what to do; its model is unchanged."""

from __future__ import annotations

import multiprocessing
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ntk_propulsion import InputError, empirical_ntk, ntk_operator
from ntk_propulsion.kernels.engine.certificate import CertificateError
from ntk_propulsion.kernels.linearization import linearized_outputs
from tests.kernels.rows import Snapshot, kernel_of, outputs_of, rows_alone, rows_together
from tests.kernels.troubles import TROUBLES, Trouble

for _name in ("mixing", "hidden", "copies", "data", "layouts", "state", "rules", "libraries"):
    import_module(f"tests.kernels.troubles_{_name}")

NOISE = 1e-20  # of the whole kernel: gradients that vanish but for rounding, squared
KINDS = "ABCDEFGHMNOP"
names = [f"{t.kind}-{t.name}" for t in TROUBLES]
every = pytest.mark.parametrize("case", TROUBLES, ids=names)
mixing = [t for t in TROUBLES if t.kind == "A" and t.expect == "refused"]


@contextmanager
def quiet(seed: int = 0) -> Iterator[None]:
    """No warnings of libraries; the same random numbers each time."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        yield


def right(case: Trouble, kernels: Any) -> None:
    """Check the kernel, in all and each module's part on its own scale, against autograd's."""
    rows = case.rows()
    kernel = next(iter(kernels.values()))
    expected = kernel_of(list(rows.values()))
    floor = NOISE * max(float(expected.norm()), 1e-30)
    if kernel.matrix.dtype == torch.float32:
        floor *= 1e6
    check("in all", kernel.matrix, expected, floor, case.tolerance)
    modules: dict[str, list[Tensor]] = {}
    for name, j in rows.items():
        modules.setdefault(name.rpartition(".")[0], []).append(j)
    for module in modules.keys() | kernel.per_module.keys():
        zero = torch.zeros_like(expected)
        part = kernel_of(modules[module]) if module in modules else zero
        check(module, kernel.per_module.get(module, zero), part, floor, case.tolerance)


def check(what: str, got: Tensor, wanted: Tensor, floor: float, tolerance: float) -> None:
    error = float((got.double() - wanted).norm() / wanted.norm().clamp(min=floor))
    assert error <= tolerance, f"{what}: relative error {error:.1e}"


def asked(case: Trouble, model: Any, batch: Any, strict: bool) -> Any:
    """Return the kernels, or the error that was meant for people."""
    options = {"per_module": True, "strict": strict, **case.keywords}
    try:
        return empirical_ntk(model, batch, case.tuning, case.outputs, **options)
    except InputError as error:
        return error


@pytest.mark.parametrize("strict", [False, True], ids=["", "strict"])
@every
def test_a_trouble_is_computed_rightly_or_refused_in_one_line(case: Trouble, strict: bool) -> None:
    if case.deadly:
        child = multiprocessing.get_context("fork").Process(target=tried, args=(case, strict))
        child.start()
        child.join()
        assert child.exitcode == 0  # below 0: the process died
    else:
        tried(case, strict)


def tried(case: Trouble, strict: bool) -> None:
    """Ask for the kernel, and compare what comes with what must come."""
    with quiet():
        model, batch = case.build()
        before = Snapshot(model)
        came = asked(case, model, batch, strict)
        assert before.changes(model) == []
        if isinstance(came, CertificateError):
            assert strict or case.keywords.get("strict")  # it asks for no fallback
            return
        if isinstance(came, InputError):
            assert case.expect != "kernel", f"refused: {came}"
            assert "\n" not in str(came)
            assert re.search(case.words, str(came)), f"other words: {came}"
            return
        assert case.expect != "refused", "not refused"
        right(case, came)


@pytest.mark.parametrize("case", mixing, ids=[t.name for t in mixing])
def test_operators_and_linearized_models_refuse_what_mixes_or_is_random(case: Trouble) -> None:
    with quiet():
        model, batch = case.build()
        before = Snapshot(model)
        with pytest.raises(InputError, match=case.words):
            ntk_operator(model, batch, case.tuning, case.outputs) @ np.ones(1)
        assert before.changes(model) == []
        name, p = next(iter(model.named_parameters()))
        moved = {name: p.detach() * 1.1 + 0.01}
        with pytest.raises(InputError, match=case.words):
            linearized_outputs(model, moved, batch, case.outputs)
        assert before.changes(model) == []


# -- the troubles themselves


def test_each_kind_has_several() -> None:
    for kind in KINDS:
        assert sum(t.kind == kind for t in TROUBLES) >= 4, kind
    assert len(names) == len(set(names))


@every
def test_a_trouble_is_the_same_each_time_and_known_to_autograd(case: Trouble) -> None:
    with quiet():
        (a, _), (b, _) = case.build(), case.build()
        assert [n for n, _ in a.named_parameters()] == [n for n, _ in b.named_parameters()]
        if case.expect == "refused":
            return
        rows = case.rows()
        assert rows
        assert all(torch.isfinite(j).all() for j in rows.values())


@pytest.mark.parametrize("case", mixing, ids=[t.name for t in mixing])
def test_a_mixing_trouble_mixes_and_a_random_one_is_random(case: Trouble) -> None:
    with quiet():
        model, batch = case.build()
        parameters = list(case.trained(model).values())
        together = rows_together(model, batch, case.outputs, parameters)
        again = rows_together(model, batch, case.outputs, parameters)
        if not all(map(torch.equal, together, again)):
            assert "random" in case.words
            return
        assert "mixes" in case.words
        if outputs_of(model, batch, case.outputs).shape[1] > 3:
            return  # as many outputs as examples
        if "alone" in case.words:
            return  # one example has no statistics
        alone = rows_alone(model, batch, case.outputs, parameters)
        change = kernel_of(alone) - kernel_of(together)
        assert float(change.norm()) > 1e-4 * float(kernel_of(together).norm())
