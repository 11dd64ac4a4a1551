"""Each layer's inputs, cotangents, outputs and weight, shown to a visitor: for studies of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from ntk_propulsion.kernels.data import Data
from ntk_propulsion.kernels.engine.binding import Binding, Feature, LayerUse
from ntk_propulsion.kernels.ntk import open_job
from ntk_propulsion.kernels.options import DEFAULT_OPTIONS, Options
from ntk_propulsion.kernels.outputs import OutputsLike
from ntk_propulsion.kernels.tunings import Tuning, output_scaling
from ntk_propulsion.models.roles import select
from ntk_propulsion.propulsion.layers import output_size

Visit = Callable[[str, list[LayerUse]], None]


def visit_layers(
    model: nn.Module,
    data: Data,
    visit: Visit,
    *,
    positions: str | tuple[str, ...] = "all",
    outputs: OutputsLike = "logits",
    options: Options = DEFAULT_OPTIONS,
) -> None:
    """Call ``visit(module name, uses)`` once for each layer, with all that its kernels are made of.

    ``uses`` has one :class:`~ntk_propulsion.kernels.tunings.LayerUse` for each call of the layer
    in the forward pass, rows in the batch's order:

    * ``use.block.x``: the inputs X, (N, T, d_in); of an embedding ``use.block.ids``, (N, T);
    * ``use.d``: the cotangents D, gradients of output o by the layer's output: O tensors, each
      (N, T, d_out), zero at tokens that no output depends on (padding);
    * ``use.y``: the output Y = X W' + b, (N, T, d_out);
    * ``use.weight``: W, (d_out, d_in), of a Conv1D too; of an embedding (vocabulary, d_out).

    T counts all tokens of an example; without a token dimension it is 1. The weight's Jacobian is
    D_no' X_n, summed over uses, and ``use.block.dense()`` is that as a matrix, (N*O, entries).
    Layers come in rounds that fit into the memory, and nothing is kept once the visitor returns: it
    copies what it needs later. Every layer is certified against autograd before it is shown.

    Examples:
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
        >>> sizes = {}
        >>> def visit(name, uses):
        ...     sizes[name] = [tuple(use.block.x.shape) for use in uses]
        >>> visit_layers(model, torch.randn(5, 3), visit)
        >>> sizes
        {'0': [(5, 1, 3)], '1': [(5, 1, 4)]}

    Args:
        model: Any module; it comes back as it was. On a wrapped one the plain layers are visited.
        data: What the model takes, N examples, as in :func:`ntk_propulsion.empirical_ntk`.
        visit: Called under ``torch.no_grad``, in the order of the forward pass. A layer that no
            example reaches is not visited.
        positions: Which layers, as `roles.select` takes them.
        outputs: As in :func:`ntk_propulsion.empirical_ntk`.
        options: Number format, memory and certificate.

    Raises:
        InputError: Bad batch, outputs or positions; too little memory; a layer that does more than
            one product with its weight, or whose Jacobian cannot be certified.
    """
    with open_job([model], [data], _Layers(positions), outputs, False, options) as job:
        job.visit(visit)


@dataclass(frozen=True)
class _Layers(Tuning):
    """The layers at the positions; as a tuning, scaling of their outputs, wrapped or not."""

    positions: str | tuple[str, ...]
    name: str = "layers"

    def bind(self, model: nn.Module) -> Binding:
        rows, modules = partial(output_scaling, degree=1), dict(model.named_modules())
        return Binding(
            features=tuple(
                Feature(name, output_size(modules[name]), rows, None, needs_output=True)
                for name in select(model, self.positions)
            )
        )
