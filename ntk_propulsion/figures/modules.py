"""The figure of how far Propulsion's kernel follows full fine-tuning's, module by module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ntk_propulsion import words
from ntk_propulsion.errors import InputError
from ntk_propulsion.figures import style
from ntk_propulsion.figures.depth import depth_axis, spoken
from ntk_propulsion.figures.plot import Plot
from ntk_propulsion.figures.setting import Setting
from ntk_propulsion.figures.style import plain
from ntk_propulsion.kernels import Kernel
from ntk_propulsion.measurements.modules import module_comparisons
from ntk_propulsion.measurements.parts import plain_module
from ntk_propulsion.measurements.tables import ModuleComparison
from ntk_propulsion.models.roles import role_of

SHARES = ("trace_share_full", "trace_share_propulsion")
DRAWN = ("module", "role", "alignment", "cka", *SHARES)


@style.styled
def modules(
    full: Kernel | Sequence[ModuleComparison],
    propulsion: Kernel | None = None,
    *,
    roles: Mapping[str, str] | None = None,
    worst: int = 4,
    setting: Setting | str = "",
) -> Plot:
    """Draw alignment, CKA and trace share of each module's kernels, in the network's order.

    Args:
        full: Full fine-tuning's kernel, made with ``per_module=True``; or modules that are compared
            already, all at one point.
        propulsion: Propulsion's kernel, likewise; None with modules that are compared already.
        roles: Each module's role, by its name in the plain model, in the network's order, as
            `models.every_role` gives it; by default what the names suggest.
        worst: How many of the modules with the lowest alignment are numbered and named.
        setting: What the caption says that they are of.

    Raises:
        InputError: There is no module to draw.
    """
    table = compared_modules(full, propulsion, roles) if isinstance(full, Kernel) else full
    if not table:
        raise InputError("there is no module to draw")
    looks = style.role_looks(module.role for module in table)
    figure = Plot([{k: asdict(m)[k] for k in DRAWN} for m in table], figsize=(12, 8))
    grid = figure.add_gridspec(3, 1, height_ratios=[1.2, 1, 1])
    axes = [figure.add_subplot(grid[i]) for i in range(3)]
    for ax, key in zip(axes, ("alignment", "cka"), strict=False):
        drawn = _dots(ax, table, key)
        ax.set_ylim(min([0, *drawn.values()]) - 0.1, 1.05)
        ax.set_ylabel(f"{words.metric_label(key)}, $K_P$ with $K_F$")
        if key == "alignment":
            missing = len(table) - len(drawn)
            _name_lowest(ax, table, drawn, worst)
    for key in SHARES:
        _dots(axes[2], table, key, hollow=key == "trace_share_propulsion")
    axes[2].set_yscale("log")
    axes[2].set_ylabel("share of the trace")
    depth_axis(axes, table)
    figure.legend(handles=_handles(looks), loc="outside right upper")
    point = words.POINTS.get(table[0].point, table[0].point)
    style.frame(
        figure,
        "Per module: how far Propulsion's kernel follows full fine-tuning's"
        + f", {point}" * bool(point),
        f"{plain(setting)} 1 is proportional (alignment) or proportional up to an offset (CKA)."
        + f" {missing} modules that Propulsion doesn't scale have no dot above." * (missing > 0),
    )
    return figure


def compared_modules(
    full: Kernel, propulsion: Kernel | None, roles: Mapping[str, str] | None
) -> Sequence[ModuleComparison]:
    """Compare the modules of two kernels.

    Raises:
        InputError: The second is missing, or one was made without ``per_module``.
    """
    if propulsion is None:
        raise InputError("modules are compared between two kernels: give Propulsion's too")
    for kernel in (full, propulsion):
        if not kernel.per_module:
            raise InputError(
                f"the kernel {kernel.tuning!r} has no parts: ask for them with per_module=True"
            )
    full.check_comparable(propulsion)
    if roles is None:
        roles = {name: role_of(name) for name in map(plain_module, full.per_module)}
    return module_comparisons("", full, propulsion, roles)


def _dots(
    ax: Axes, table: Sequence[ModuleComparison], key: str, hollow: bool = False
) -> dict[int, float]:
    """Draw a number of every module that has one; return ``{position: number}``."""
    looks = style.role_looks(module.role for module in table)
    size = 6 if len(table) < 80 else 4.5
    drawn = {}
    for i, module in enumerate(table):
        value = words.finite(getattr(module, key))
        if value is not None:
            colour, marker = looks[module.role]
            face = "white" if hollow else colour
            ax.plot(i, value, marker, color=colour, mfc=face, markersize=size)
            drawn[i] = value
    return drawn


def _name_lowest(
    ax: Axes, table: Sequence[ModuleComparison], drawn: dict[int, float], worst: int
) -> None:
    """Number the lowest dots of a panel and name their modules above it, two a line."""
    lowest = sorted(drawn, key=lambda i: drawn[i])[:worst]
    names = []
    for rank, i in enumerate(lowest, 1):
        ax.annotate(
            str(rank),
            (i, drawn[i]),
            (0, -13),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
            weight="bold",
        )
        names.append(f"{rank}  {plain(table[i].module)}  {drawn[i]:.2f}")
    lines = [",   ".join(names[i : i + 2]) for i in range(0, len(names), 2)]
    ax.set_title("\n".join(["lowest alignment:", *lines]) if lines else "", fontsize=8.5)


def _handles(looks: Mapping[str, style.Look]) -> list[Line2D]:
    keys = [(spoken(role), colour, marker, colour) for role, (colour, marker) in looks.items()]
    keys += [("share of $K_F$", "black", "o", "black"), ("share of $K_P$", "black", "o", "white")]
    return [
        Line2D([], [], color=colour, marker=marker, mfc=face, linestyle="", label=label)
        for label, colour, marker, face in keys
    ]
