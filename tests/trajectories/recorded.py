"""Recordings small enough for tests: one layer of BERT in float64, twelve texts, four steps."""

import functools

import numpy as np
import torch

from ntk_propulsion.kernels.reference import reference_jacobian
from ntk_propulsion.models.loaded import LoadedModel
from ntk_propulsion.models.loading import load_model
from ntk_propulsion.models.tokens import encode
from ntk_propulsion.trajectories import Trajectory, record_trajectory
from tests.tiny_folders import make_task, save_model
from tests.tiny_runs import scratch

TASK = make_task(n=12)
SHOWN = TASK.test[:4]
LABELS = [example.label for example in SHOWN]
TRAINING = {"steps": 4, "learning_rate": 1e-2, "batch_size": 4, "seed": 3}
AT = (1, 4)  # between them lies a checkpoint of every second step


@functools.cache
def folder(kind: str = "bert") -> str:
    """Return the folder of a tiny model."""
    layers = {} if kind == "gpt2" else {"num_hidden_layers": 1}
    return str(save_model(scratch() / f"trajectory-{kind}", kind, **layers))


def load(kind: str = "bert", dtype: torch.dtype = torch.float64) -> LoadedModel:
    """Return a tiny model; its embeddings are spread, so that texts differ."""
    loaded = load_model(folder(kind), TASK, dtype=dtype)
    with torch.no_grad():
        loaded.model.get_input_embeddings().weight.mul_(20)
    return loaded


def batch(loaded: LoadedModel):
    """Return the four examples of the kernels."""
    return encode(loaded, SHOWN).batch


def record(method="full", loaded: LoadedModel | None = None, **changes) -> Trajectory:
    """Record a tiny training."""
    loaded = loaded or load()
    settings = {"at": AT, "targets": LABELS} | TRAINING | changes
    return record_trajectory(loaded, TASK, TASK.train, batch(loaded), method, **settings)


@functools.cache
def recorded(method: str = "full") -> Trajectory:
    """Return a recording that several tests look at; not to be changed."""
    return record(method)


def same(one: Trajectory, other: Trajectory) -> bool:
    """Whether two trajectories agree to the bit, matrices and all."""
    arrays = ("outputs", "linearized", "velocity_per_example")
    return (
        one.table() == other.table()
        and one.steps == other.steps
        and all(
            torch.equal(p.own.matrix, q.own.matrix)
            and torch.equal(p.full.matrix, q.full.matrix)
            and np.array_equal(p.measures.difference, q.measures.difference)
            and p.measures.drift_per_module == q.measures.drift_per_module
            and all(np.array_equal(getattr(p, name), getattr(q, name)) for name in arrays)
            for p, q in zip(one.points, other.points, strict=True)
        )
    )


def jacobian(model, inputs):
    """Return the Jacobian of what requires a gradient, (N*O, P), row by row."""
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    found = reference_jacobian(model, inputs, parameters=names)
    return torch.cat([found[name] for name in names], 1)
