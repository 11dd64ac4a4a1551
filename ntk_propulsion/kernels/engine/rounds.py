"""One round on one side: the chosen sites captured, and made into blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.engine.binding import LayerUse
from ntk_propulsion.kernels.engine.capture import Captured, OnForward, capture
from ntk_propulsion.kernels.engine.forward import first_line, unless_memory
from ntk_propulsion.kernels.engine.jacobian import (
    Block,
    EmbeddingBlock,
    LinearBlock,
    closed_form,
    host_blocks,
)
from ntk_propulsion.kernels.engine.side import Side
from ntk_propulsion.kernels.engine.sites import SiteKey
from ntk_propulsion.kernels.engine.survey import Site


@dataclass
class Round:
    """What one round of passes found on one side.

    Attributes:
        blocks: By parameter.
        uses: By layer: its calls, for features.
        lost: By parameter: why it could not be captured.
        lost_layers: By layer: why its features cannot be read off.
    """

    blocks: dict[str, list[Block]] = field(default_factory=dict)
    uses: dict[str, list[LayerUse]] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    lost_layers: dict[str, str] = field(default_factory=dict)

    def lose(self, sites: Sequence[Site], why: str) -> None:
        """Give up sites: autograd does their parameters."""
        self.lost |= {name: why for site in sites for name in site.parameters}
        self.lost_layers |= {site.module: why for site in sites}


def capture_round(
    side: Side,
    sites: Sequence[Site],
    with_outputs: frozenset[SiteKey],
    chunk: int,
    on_forward: OnForward,
) -> Round:
    """Capture sites on all examples of a side; what fails there is lost, and nothing else.

    Args:
        side: Model and examples.
        sites: What to capture.
        with_outputs: Keys of the sites whose output is kept too.
        chunk: Examples a pass takes at once.
        on_forward: Called with each pass's outputs.

    Raises:
        InputError: ``on_forward`` refuses the outputs.
    """
    found = Round()
    try:
        captured = capture(
            side.model,
            side.batch,
            side.n,
            side.outputs,
            side.names,
            side.survey,
            sites,
            with_outputs,
            chunk,
            on_forward,
        )
    except InputError:
        raise
    except Exception as error:
        unless_memory(error)
        found.lose(sites, f"it could not be captured ({first_line(error)})")
        return found
    for site in sites:
        gives = captured.pop(site.key, None)
        if gives is None:
            continue  # no example reached it
        if gives.lost:
            found.lose([site], gives.lost)
            continue
        try:
            _add_site(found, side, site, gives, chunk)
        except Exception as error:
            unless_memory(error)
            found.lose([site], f"no rule bears it ({first_line(error)})")
    return found


def _add_site(found: Round, side: Side, site: Site, gives: Captured, chunk: int) -> None:
    gives.cast(side.dtype)
    if site.kind == "module":
        blocks = host_blocks(side.model, site, gives, side.names, chunk, side.dtype)
    else:
        shapes = {name: side.parameters[name].shape for name in site.parameters}
        blocks = closed_form(site, gives, shapes)
    for name, block in blocks.items():
        found.blocks.setdefault(name, []).append(block)
    if site.module in side.features and site.kind in ("linear", "embedding"):
        _add_use(found, side, site, gives, blocks)


def _add_use(
    found: Round, side: Side, site: Site, gives: Captured, blocks: dict[str, Block]
) -> None:
    assert site.call is not None
    block = blocks.get(site.call.weight or "")
    if not isinstance(block, LinearBlock | EmbeddingBlock):
        found.lost_layers[site.module] = "others use its weight in other ways"
        return
    weight = side.parameters[str(site.call.weight)].detach()
    use = LayerUse(block, gives.y, weight.T if site.call.transposed else weight)
    found.uses.setdefault(site.module, []).append(use)
