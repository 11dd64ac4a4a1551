"""The figure of the learning rates that were tried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from matplotlib.axes import Axes

from ntk_propulsion import words
from ntk_propulsion.errors import InputError
from ntk_propulsion.figures import style
from ntk_propulsion.figures.plot import Plot, Record
from ntk_propulsion.figures.setting import Setting
from ntk_propulsion.figures.style import plain
from ntk_propulsion.training.sweep import Trial


class Swept(Protocol):
    """A method's sweep: `training.sweep.Sweep`, or what a report keeps of it."""

    @property
    def method(self) -> str: ...  # noqa: D102

    @property
    def chosen(self) -> float: ...  # noqa: D102

    @property
    def at_edge(self) -> bool: ...  # noqa: D102

    @property
    def steps(self) -> int: ...  # noqa: D102

    @property
    def examples(self) -> int: ...  # noqa: D102

    @property
    def trials(self) -> tuple[Trial, ...]: ...  # noqa: D102


@style.styled
def sweeps(swept: Sequence[Swept], *, unit: str = "nats", setting: Setting | str = "") -> Plot:
    """Draw every method's validation loss over the learning rates that it tried.

    Filled marks were chosen, faint ones given up half way; a trial that diverged stands at the
    upper edge, marked with a cross.

    Args:
        swept: A sweep of each method; those of one rate are left out.
        unit: Of the loss.
        setting: What the caption says that they are of.

    Raises:
        InputError: No method tried several learning rates.
    """
    several = [sweep for sweep in swept if len(sweep.trials) > 1]
    if not several:
        raise InputError("no method tried several learning rates: there is no sweep to draw")
    figure = Plot(figsize=(9, 4.8))
    ax = figure.add_subplot()
    looks = style.tuning_looks(sweep.method for sweep in several)
    for sweep in several:
        figure.rows += _draw(ax, sweep, *looks[sweep.method])
    ax.set_xscale("log")
    ax.set(xlabel="peak learning rate (AdamW)", ylabel=f"validation loss ({unit})")
    ax.legend(title="chosen", loc="center left", bbox_to_anchor=(1.01, 0.5))
    first = several[0]
    style.frame(
        figure,
        "Learning rates, chosen with one budget for every method",
        f"{plain(setting)} Each mark: {first.steps} steps, loss on {first.examples} training "
        "examples that nothing is fitted on. Filled: the one chosen; faint: behind half way, and "
        "given up; crosses at the top: diverged.",
    )
    return figure


def _draw(ax: Axes, sweep: Swept, colour: str, marker: str) -> list[Record]:
    """Draw one method's trials; return them."""
    tried = [trial for trial in sweep.trials if trial.loss is not None and not trial.stopped_at]
    rates, losses = [t.learning_rate for t in tried], [t.loss for t in tried]
    ax.plot(rates, losses, "-", color=colour, marker=marker, mfc="white")  # type: ignore[arg-type]
    edge = " (at the edge)" if sweep.at_edge else ""
    label = f"{plain(words.tuning(sweep.method))}: {sweep.chosen:g}{edge}"
    for trial in sweep.trials:
        x = trial.learning_rate
        if trial.loss is None:
            ax.plot(x, 0.98, "x", color=colour, transform=ax.get_xaxis_transform())
        elif trial.stopped_at:
            ax.plot(
                x, trial.loss, marker=marker, color=colour, linestyle="", mfc="white", alpha=0.4
            )
        elif x == sweep.chosen:
            ax.plot(x, trial.loss, marker=marker, color=colour, linestyle="", label=label)
    return [
        {
            "method": sweep.method,
            "learning_rate": trial.learning_rate,
            "loss": trial.loss,
            "metric": trial.metric,
            "stopped_at": trial.stopped_at,
            "chosen": trial.learning_rate == sweep.chosen,
        }
        for trial in sweep.trials
    ]
