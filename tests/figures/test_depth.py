from matplotlib.figure import Figure

from ntk_propulsion.figures.depth import Place, blocks, depth_axis, spoken

NETWORK = [
    Place("embeddings", "embedding"),
    Place("norm", "embedding"),
    *(Place(f"layer.{i}.{name}", name) for i in range(2) for name in ("query", "key")),
    Place("classifier", "head"),
]


def test_modules_of_one_layer_stand_together():
    assert blocks(NETWORK) == [
        (0, 2, "embedding"),
        (2, 4, "layer 0"),
        (4, 6, "layer 1"),
        (6, 7, "head"),
    ]


def test_layers_are_named_below_the_last_panel():
    axes = Figure().subplots(2)
    depth_axis(list(axes), NETWORK)
    assert [text.get_text() for text in axes[1].get_xticklabels()] == [
        "embedding",
        "layer 0",
        "layer 1",
        "head",
    ]
    assert axes[0].get_xticks().size == 0
    assert axes[1].get_xlim() == (-0.5, 6.5)


def test_many_layers_have_numbers_only():
    axes = Figure().subplots(1)
    depth_axis([axes], [Place(f"layer.{i}.query", "query") for i in range(12)])
    assert [text.get_text() for text in axes.get_xticklabels()] == [str(i) for i in range(12)]


def test_a_role_is_spoken():
    assert spoken("attention_output") == "attention output"
    assert spoken("$") == r"\$"
