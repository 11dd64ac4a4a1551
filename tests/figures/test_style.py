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


def test_equal_figures_give_equal_bytes():
    def draw():
        figure = Figure()
        figure.add_subplot().plot([1, 2])
        return style.render(figure)

    first = draw()
    assert first.startswith(b"\x89PNG")
    assert first == draw()


def test_saving_leaves_only_the_figure(tmp_path):
    path = style.save(Figure(), tmp_path / "new" / "a.png")
    assert list(path.parent.iterdir()) == [path]


def test_a_dollar_in_data_opens_no_formula():
    figure = Figure()
    style.frame(figure, style.plain(r"costs $5 or $\frac"), "caption")
    assert style.render(figure).startswith(b"\x89PNG")


def test_77_names_look_different():
    looks = style.appearance(str(i) for i in range(77))
    assert len(set(looks.values())) == 77


def test_a_known_name_looks_the_same_in_whatever_company():
    alone = style.tuning_looks(["lora"])
    among = style.tuning_looks(["propulsion", "a sum of them", "lora", "full"])
    assert among["lora"] == alone["lora"]
    assert {among[name][0] for name in style.TUNING_COLOURS} == {*style.TUNING_COLOURS.values()}
    assert len(set(among.values())) == 4
    assert style.role_looks(["mlp"]) == {"mlp": style.role_looks(["norm", "query", "mlp"])["mlp"]}


def test_an_axis_of_steps_names_recorded_steps_only():
    ax = Figure().add_subplot()
    style.steps(ax, [0, 1, 4, 1])
    assert ax.get_xticks().tolist() == [0, 1, 4]
    style.steps(ax, range(100))
    assert len(ax.get_xticks()) <= style.MOST_TICKS
