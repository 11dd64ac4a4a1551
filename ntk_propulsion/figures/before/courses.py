"""Figures of what happened along training: learning rates tried, and methods side by side."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from ntk_propulsion import words
from ntk_propulsion.figures import style
from ntk_propulsion.figures.before.plot import Plot
from ntk_propulsion.figures.style import plain
from ntk_propulsion.theory.distances import direction

KERNELS = {
    "own-full": "what each trains, K_t, from full fine-tuning's K_F",
    "full": "K_F at each one's parameters, from full fine-tuning's K_F",
}
MEASURES = ("cka", "best_scale_error")


@style.styled
def sweep_figure(results: dict[str, Any]) -> Figure:
    """Draw every method's validation loss over the learning rates that it tried.

    Filled marks were chosen; a trial that diverged stands at the upper edge, marked with a cross.
    """
    sweeps = [sweep for sweep in results["sweeps"] if len(sweep["trials"]) > 1]
    looks = style.appearance(["full", "propulsion", *(sweep["method"] for sweep in sweeps)])
    figure = Plot(
        [
            {
                "method": sweep["method"],
                **trial,
                "chosen": trial["learning_rate"] == sweep["chosen"],
            }
            for sweep in sweeps
            for trial in sweep["trials"]
        ],
        figsize=(9, 4.8),
    )
    ax = figure.add_subplot()
    for sweep in sweeps:
        colour, marker = looks[sweep["method"]]
        tried = [trial for trial in sweep["trials"] if trial["loss"] is not None]
        rates, losses = ([trial[key] for trial in tried] for key in ("learning_rate", "loss"))
        ax.plot(rates, losses, "-", color=colour, marker=marker, mfc="white")
        for rate, loss in zip(rates, losses, strict=True):
            if rate == sweep["chosen"]:
                label = f"{plain(words.tuning(sweep['method']))}: {rate:g}"
                label += " (at the edge)" if sweep["at_edge"] else ""
                ax.plot(rate, loss, marker=marker, color=colour, linestyle="", label=label)
        for trial in sweep["trials"]:
            if trial["loss"] is None:
                top = ax.get_xaxis_transform()
                ax.plot(trial["learning_rate"], 0.98, "x", color=colour, transform=top)
    ax.set_xscale("log")
    unit = "mean squared error" if results["task"]["kind"] == "regression" else "nats"
    ax.set(xlabel="peak learning rate (AdamW)", ylabel=f"validation loss ({unit})")
    ax.legend(title="chosen", loc="center left", bbox_to_anchor=(1.01, 0.5))
    first = sweeps[0]
    style.frame(
        figure,
        "Learning rates, chosen with one budget for every method",
        f"{style.setting(results)} Each mark: {first['steps']} steps, loss on {first['examples']} "
        "training examples that nothing is fitted on. Filled: the one chosen; crosses at the top: "
        "diverged.",
    )
    return figure


@style.styled
def between_figure(results: dict[str, Any]) -> Figure:
    """Draw every method's distance from full fine-tuning at equal steps."""
    rows = [row for row in results["between"] if row["quantity"] in MEASURES]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    looks = style.appearance(["full", "propulsion", *methods])
    figure = Plot(rows, figsize=(9.5, 6.4))
    axes = figure.subplots(len(MEASURES), len(KERNELS), sharex=True, sharey="row")
    for line, quantity in zip(axes, MEASURES, strict=True):
        for ax, (kernel, title) in zip(line, KERNELS.items(), strict=True):
            for method in methods:
                found = words.rows(rows, quantity=quantity, kernel=kernel, method=method)
                colour, marker = looks[method]
                steps, values = ([row[key] for row in found] for key in ("step", "value"))
                ax.plot(
                    steps, values, color=colour, marker=marker, label=plain(words.tuning(method))
                )
            ax.set_xscale("symlog", linthresh=1)
            ax.set_xlim(left=0)
            if quantity == MEASURES[0]:
                ax.set_title(title, fontsize=9)
            else:
                ax.set_xlabel("step")
        best = direction(quantity)
        line[0].set_ylabel(f"{words.metric_label(quantity)} ({best})")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(labels))
    style.frame(
        figure,
        "How far each method is from full fine-tuning at equal steps",
        f"{style.setting(results)} Kernels of the first {_examples(results)}. No units; each "
        "method at its own learning rate.",
    )
    return figure


def _examples(results: dict[str, Any]) -> str:
    return f"{results['trajectories'][0]['examples']} of them"
