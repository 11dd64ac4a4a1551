from ntk_propulsion.figures.plot import PairScale, Plot


def test_a_plot_keeps_its_rows_and_stays_a_figure():
    given = ({"x": i} for i in range(2))
    plot = Plot(given, figsize=(3, 2), pairs=PairScale(2.0, 1.0))
    assert plot.rows == [{"x": 0}, {"x": 1}]
    assert plot.pairs == PairScale(scale=2.0, limit=1.0)
    assert plot.get_size_inches().tolist() == [3, 2]
    assert Plot().pairs is None


def test_a_notebook_shows_a_plot_by_itself():
    assert Plot(figsize=(1, 1))._repr_png_().startswith(b"\x89PNG")
