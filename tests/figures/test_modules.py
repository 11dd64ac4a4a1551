from dataclasses import replace

import pytest

from ntk_propulsion.errors import InputError
from ntk_propulsion.figures import modules, style
from ntk_propulsion.measurements.tables import ModuleComparison
from ntk_propulsion.theory.distances import compare_kernels
from tests.figures.made import ROLES, assert_drawn, caption, kernel, texts

FULL, OURS = kernel(), kernel("propulsion", 0.1)


def dots(ax, filled=True):
    """What is drawn in a panel, by position."""
    return {
        line.get_xdata()[0]: line.get_ydata()[0]
        for line in ax.lines
        if (line.get_markerfacecolor() != "white") is filled
    }


def test_every_module_is_drawn_in_the_networks_order():
    figure = modules(FULL, OURS, roles=ROLES, setting="Of a tiny model.")
    alignment, cka, share = figure.axes
    for ax, name in ((alignment, "alignment"), (cka, "cka")):
        expected = {
            i: compare_kernels(OURS.per_module[f"{module}.scaling"], FULL.per_module[module], 2)
            for i, module in enumerate(ROLES)
            if f"{module}.scaling" in OURS.per_module
        }
        assert dots(ax) == {i: pytest.approx(found[name]) for i, found in expected.items()}
    traces = [float(FULL.per_module[module].trace()) for module in ROLES]
    assert dots(share) == {i: pytest.approx(t / sum(traces)) for i, t in enumerate(traces)}
    assert len(dots(share, filled=False)) == len(OURS.per_module)
    assert share.get_yscale() == "log"
    assert "alignment" in alignment.get_ylabel()
    assert "CKA" in cka.get_ylabel()
    assert caption(figure).startswith("Of a tiny model. 1 is proportional")
    assert "1 modules that Propulsion doesn't scale" in caption(figure)
    assert_drawn(figure)


def test_the_lowest_are_numbered_and_named():
    figure = modules(FULL, OURS, roles=ROLES, worst=2)
    lowest = sorted((r for r in figure.rows if r["alignment"]), key=lambda r: r["alignment"])[:2]
    said = texts(figure)
    for rank, row in enumerate(lowest, 1):
        assert f"{rank}  {row['module']}  {row['alignment']:.2f}" in said
    assert [text.get_text() for text in figure.axes[0].texts] == ["1", "2"]


def test_the_data_are_what_is_drawn():
    figure = modules(FULL, OURS, roles=ROLES)
    assert [row["module"] for row in figure.rows] == list(ROLES)
    drawn = {i: r["alignment"] for i, r in enumerate(figure.rows) if r["alignment"] is not None}
    assert dots(figure.axes[0]) == drawn


def test_roles_are_coloured_and_named():
    figure = modules(FULL, OURS, roles=ROLES)
    looks = style.role_looks(ROLES.values())
    colours = {line.get_xdata()[0]: line.get_color() for line in figure.axes[2].lines}
    assert colours == {i: looks[role][0] for i, role in enumerate(ROLES.values())}
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named == [*looks, "share of $K_F$", "share of $K_P$"]


def test_without_roles_the_names_suggest_them():
    assert {row["module"]: row["role"] for row in modules(FULL, OURS).rows}["classifier"] == "head"


def test_modules_that_are_compared_already_are_drawn_as_they_are():
    row = ModuleComparison("full_tuned", "layer.0.query", "query", 0.5, 0.25, None, 0.1, None)
    figure = modules([row, replace(row, module="layer.1.query", alignment=None)])
    assert dots(figure.axes[0]) == {0: 0.5}
    assert figure.get_suptitle().endswith(", after full fine-tuning")
    names = [text.get_text() for text in figure.axes[2].get_xticklabels()]
    assert names == ["layer 0", "layer 1"]


def test_kernels_without_parts_are_refused():
    with pytest.raises(InputError, match="per_module=True"):
        modules(replace(FULL, per_module={}), OURS)
    with pytest.raises(InputError, match="other examples"):
        modules(FULL, replace(OURS, row_fingerprint="others"))
    with pytest.raises(InputError, match="give Propulsion's too"):
        modules(FULL)
    with pytest.raises(InputError, match="no module"):
        modules([])
