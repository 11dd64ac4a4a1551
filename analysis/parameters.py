"""How many parameters Propulsion trains, exactly, in the models that the paper names (claim E1)."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from transformers import RobertaConfig, RobertaForSequenceClassification

from analysis.framework.command import main
from analysis.framework.options import Settings as Base
from analysis.framework.rules import FAILS, HOLDS, Verdict, verdict
from analysis.framework.study import Check, Study, Work
from analysis.framework.tables import Row
from ntk_propulsion.figures import style
from ntk_propulsion.kernels.tunings import AdaLoRA, BitFit, LoRA, count_trained
from ntk_propulsion.propulsion import PropulsionConfig, count_parameters
from ntk_propulsion.runs.options import option

PRINTED = (355.3, 0.086)  # millions: all parameters, and those that train
SIZES = {
    "RoBERTa-base": RobertaConfig(
        vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, num_labels=2
    ),
    "RoBERTa-large": RobertaConfig(
        vocab_size=50265,
        max_position_embeddings=514,
        type_vocab_size=1,
        num_labels=2,
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
    ),
}
POSITIONS: Mapping[str, tuple[str, ...]] = {
    "all": ("all",),
    "encoder and embeddings": ("encoder", "embedding"),
    "encoder": ("encoder",),
    "query, key, value": ("query", "key", "value"),
}


@dataclass(frozen=True)
class Settings(Base):
    """Settings of the study."""

    rank: int = option(8, "Of LoRA and AdaLoRA, on every linear layer of the encoder.")


def measure(settings: Settings, work: Work) -> list[Row]:
    """Count on models without weights."""
    rows: list[Row] = []
    for name, config in SIZES.items():
        with torch.device("meta"):
            model = RobertaForSequenceClassification(config)
        rows.append(_row(name, "everything", sum(p.numel() for p in model.parameters())))
        for place, positions in POSITIONS.items():
            found = count_parameters(model, PropulsionConfig(positions=positions)).total
            rows.append(_row(name, f"Propulsion, {place}", found))
        with_biases = count_parameters(
            model, PropulsionConfig(positions=("encoder",), biases="all")
        )
        rows.append(_row(name, "Propulsion, encoder, and every linear bias", with_biases.total))
        rank = settings.rank
        for tuning in (
            LoRA(rank=rank, positions="encoder"),
            AdaLoRA(rank=rank, positions="encoder"),
            BitFit(),
        ):
            label = tuning.name if isinstance(tuning, BitFit) else f"{tuning.name}, rank {rank}"
            count = _all_factors(model, tuning) or count_trained(tuning.bind(model), model)
            rows.append(_row(name, label, count))
    return rows


def _row(model: str, what: str, count: int) -> Row:
    return {"model": model, "trains": what, "parameters": count}


def _all_factors(model: torch.nn.Module, tuning: object) -> int | None:
    """Return all that LoRA or AdaLoRA trains: their kernels at the start see only a part."""
    if not isinstance(tuning, LoRA | AdaLoRA):
        return None
    names = {feature.module for feature in tuning.bind(model).features}
    shapes = [model.get_submodule(name).get_parameter("weight").shape for name in names]
    lambdas = tuning.rank * len(shapes) if isinstance(tuning, AdaLoRA) else 0
    return sum(tuning.rank * sum(shape) for shape in shapes) + lambdas


def judge(rows: Sequence[Row], settings: Settings) -> list[Verdict]:
    """Judge E1."""
    found = {(row["model"], row["trains"]): row["parameters"] / 1e6 for row in rows}
    pairs = {
        model: (found[model, "everything"], found[model, "Propulsion, all"]) for model in SIZES
    }
    printed = [
        abs(total - PRINTED[0]) <= 0.1 and round(trained, 3) == PRINTED[1]
        for total, trained in pairs.values()
    ]
    text = "; ".join(f"{model} {a:.1f}M -> {b:.3f}M" for model, (a, b) in pairs.items())
    adalora = f"adalora, rank {settings.rank}"
    ratios = ", ".join(
        f"{model} {found[model, adalora] / b:.1f} times" for model, (_, b) in pairs.items()
    )
    text += f"; AdaLoRA of rank {settings.rank} on the encoder trains more by {ratios}"
    about = "exact counts, 2 labels; Propulsion on every layer, the head's included"
    return [verdict("E1", HOLDS if any(printed) else FAILS, text, about)]


def check(rows: Sequence[Row], settings: Settings) -> list[Check]:
    """Check the counts that follow from the architecture alone."""
    found = {(row["model"], row["trains"]): row["parameters"] for row in rows}
    checks = []
    for model, config in SIZES.items():
        d, ff = config.hidden_size, config.intermediate_size
        expected = config.num_hidden_layers * (5 * d + ff)
        count = found[model, "Propulsion, encoder"]
        text = f"{count} = {config.num_hidden_layers} * (5 * {d} + {ff})"
        checks.append(Check(f"{model}: one entry per neuron", count == expected, text))
    return checks


@style.styled
def counts(rows: Sequence[Row], settings: Settings) -> Figure:
    """Draw the counts on a common logarithmic scale."""
    figure = Figure(figsize=(10, 4.2))
    ax = figure.subplots()
    names = list(dict.fromkeys(row["trains"] for row in rows))
    for model, (colour, marker) in style.appearance(SIZES).items():
        values = {row["trains"]: row["parameters"] for row in rows if row["model"] == model}
        places = [names.index(name) for name in values]
        ax.plot(list(values.values()), places, marker, color=colour, label=model)
        for place, value in zip(places, values.values(), strict=True):
            left = model == min(SIZES)
            ax.annotate(
                f"{value:,}",
                (value, place),
                (-7 if left else 7, -3),
                ha="right" if left else "left",
                textcoords="offset points",
                size=8,
            )
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set_xscale("log")
    ax.set_xlim(8e3, 3e9)
    ax.set_xlabel("trainable parameters")
    ax.legend(loc="lower right")
    printed = f"Printed: {PRINTED[0]}M -> {PRINTED[1]}M."
    style.frame(figure, "What each tuning trains", f"Exact counts, 2 labels. {printed}")
    return figure


def draw(rows: Sequence[Row], settings: Settings) -> Mapping[str, Figure]:
    """Draw the counts."""
    return {"figure": counts(rows, settings)}


STUDY = Study(
    name="parameters",
    question="How many parameters does Propulsion train?",
    settings=Settings,
    quick={},
    measure=measure,
    judge=judge,
    draw=draw,
    check=check,
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
