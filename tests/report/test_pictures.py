import base64
import csv
import io

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from ntk_propulsion.figures import style
from ntk_propulsion.report.drawing import draw_experiment, labels_of
from ntk_propulsion.report.page import KEY_FIGURE
from ntk_propulsion.report.pictures import ShownExample, explorer, picture


def content(address):
    return base64.b64decode(address.partition("base64,")[2])


def test_a_picture_has_the_figures_pixels_words_and_data(classification):
    figure = draw_experiment(classification.experiment, classification.arrays)[KEY_FIGURE]
    png = style.render(figure)
    shown = picture("kernels", figure, png)
    drawn, embedded = (
        np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        for data in (png, content(shown.image))
    )
    assert (drawn == embedded).all()
    assert len(content(shown.image)) < 0.6 * len(png)
    assert shown.alt.startswith("Kernels of full fine-tuning and Propulsion, before training")
    assert "\n" not in shown.alt
    rows = list(csv.DictReader(io.StringIO(content(shown.csv).decode())))
    assert [float(row["K_F"]) for row in rows] == [row["K_F"] for row in figure.rows]
    assert shown.pairs == figure.pairs


def test_a_figure_without_data_has_no_link():
    figure = Figure(figsize=(1, 1))
    assert picture("plain", figure, style.render(figure)).csv == ""


def explored(made):
    return explorer(made.results.examples, made.results.task)


def test_examples_come_in_the_order_of_the_pixels_with_their_words(classification, regression):
    shown = explored(classification)
    assert [e.row for e in shown.examples] == labels_of(classification.results).order.tolist()
    assert shown.examples[1] == ShownExample(2, "negative", ("a text number 2, quite ordinary",))
    assert shown.classes
    pairs = explored(regression)
    assert not pairs.classes
    assert all(len(example.texts) == 2 for example in pairs.examples)


def test_the_colours_are_the_figures_with_zero_in_the_middle(classification):
    colours = explored(classification).colours
    assert len(colours) % 2 == 1
    middle = int(colours[len(colours) // 2][1:], 16)
    assert all(middle >> shift & 255 > 0xF0 for shift in (0, 8, 16))
    assert colours[0] != colours[-1]
