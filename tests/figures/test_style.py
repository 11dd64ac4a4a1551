import matplotlib
import pytest
from matplotlib.figure import Figure

from ntk_propulsion.figures import style


def test_matplotlibs_settings_come_back_even_after_an_error():
    before = dict(matplotlib.rcParams)

    @style.styled
    def draw():
        assert matplotlib.rcParams["legend.frameon"] is False
        raise RuntimeError

    with pytest.raises(RuntimeError):
        draw()
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(("kind", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_equal_figures_give_equal_bytes(kind, start):
    def draw():
        figure = Figure()
        figure.add_subplot().plot([1, 2])
        return style.render(figure, kind)

    first = draw()
    assert first.startswith(start)
    assert first == draw()


def test_saving_leaves_only_the_figure(tmp_path):
    path = style.save(Figure(), tmp_path / "new" / "a.png")
    assert list(path.parent.iterdir()) == [path]


def test_a_dollar_in_data_opens_no_formula():
    figure = Figure()
    style.frame(figure, style.plain(r"costs $5 or $\frac"), "caption")
    assert style.render(figure).startswith(b"\x89PNG")


def test_49_names_look_different():
    looks = style.appearance(str(i) for i in range(49))
    assert len(set(looks.values())) == 49
