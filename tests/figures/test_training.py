import numpy as np
import pytest

from ntk_propulsion.errors import InputError
from ntk_propulsion.figures import style, training
from tests.figures.made import assert_drawn, caption, texts

LONG = [0.7 * np.exp(-step / 40) for step in range(60)]


def test_a_long_training_has_a_running_mean():
    figure = training({"propulsion": LONG}, setting="Of a tiny model.")
    (ax,) = figure.axes
    raw, mean = (line.get_ydata() for line in ax.lines)
    assert raw.tolist() == LONG
    assert mean[0] == pytest.approx(np.mean(LONG[:5]))
    assert [row["loss"] for row in figure.rows] == LONG
    assert [row["running_mean"] for row in figure.rows if "running_mean" in row] == mean.tolist()
    assert "running mean" in caption(figure)
    assert_drawn(figure)


def test_a_short_training_is_drawn_as_it_is_from_step_one():
    figure = training({"full": [0.7, 0.6], "propulsion": [(1, 0.5), (4, 0.4)]})
    full, ours = figure.axes[0].lines
    assert (full.get_xdata().tolist(), full.get_ydata().tolist()) == ([1, 2], [0.7, 0.6])
    assert (ours.get_xdata().tolist(), ours.get_ydata().tolist()) == ([1, 4], [0.5, 0.4])
    assert "running mean" not in caption(figure)
    looks = style.tuning_looks(["full", "propulsion"])
    assert [line.get_color() for line in (full, ours)] == [looks[m][0] for m in looks]
    assert_drawn(figure)


def test_remarks_and_the_unit_are_said():
    figure = training({"full": [1, 2]}, remarks={"full": "accuracy 0 → 1"}, unit="nats")
    assert "full fine-tuning: accuracy 0 → 1" in texts(figure)
    assert figure.axes[0].get_ylabel() == "training loss (nats)"


def test_steps_are_whole_numbers():
    (ax,) = training({"full": [1, 2, 3]}).axes
    assert all(tick == int(tick) for tick in ax.get_xticks())


def test_a_method_without_losses_does_not_hide_the_others():
    assert len(training({"full": [], "lora": [1, 2]}).rows) == 2
    with pytest.raises(InputError, match="no training loss"):
        training({"full": []})
