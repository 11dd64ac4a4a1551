import pytest

from ntk_propulsion.errors import InputError
from ntk_propulsion.figures import style, sweeps
from ntk_propulsion.training.sweep import Sweep, Trial
from tests.figures.made import assert_drawn, caption


def sweep(method, *losses):
    trials = tuple(
        Trial(10.0**i, loss, None if loss is None else 0.5) for i, loss in enumerate(losses, -4)
    )
    return Sweep(method, trials, steps=7, examples=9)


SEVERAL = [sweep("full", 0.7, 0.6, None), sweep("lora", 0.5, 0.6)]


def test_the_choice_is_filled_and_what_diverged_crossed():
    figure = sweeps(SEVERAL)
    (ax,) = figure.axes
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["full fine-tuning: 0.001", "LoRA: 0.0001 (at the edge)"]
    assert [line.get_marker() for line in ax.lines].count("x") == 1
    assert [row["chosen"] for row in figure.rows] == [False, True, False, True, False]
    assert [row["loss"] for row in figure.rows] == [0.7, 0.6, None, 0.5, 0.6]
    colours = {line.get_color() for line in ax.lines}
    assert colours == {look[0] for look in style.tuning_looks(["full", "lora"]).values()}
    assert_drawn(figure)


def test_the_budget_and_unit_are_said():
    figure = sweeps(SEVERAL, unit="mean squared error", setting="Of a tiny model.")
    assert caption(figure).startswith("Of a tiny model. Each mark: 7 steps, loss on 9 training")
    assert figure.axes[0].get_ylabel() == "validation loss (mean squared error)"


def test_a_single_rate_is_no_sweep():
    assert {row["method"] for row in sweeps([*SEVERAL, sweep("ia3", 0.5)]).rows} == {"full", "lora"}
    with pytest.raises(InputError, match="no sweep"):
        sweeps([sweep("full", 0.5)])
