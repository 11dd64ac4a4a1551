import copy
import io

from rich.console import Console

from ntk_propulsion.report import tables


def printed(table, width=80):
    out = io.StringIO()
    Console(file=out, width=width).print(table)
    return out.getvalue()


def test_the_summary_fits_80_columns_with_every_number_whole(classification):
    text = printed(tables.summary(classification.results))
    assert "…" not in text
    for d in classification.results["distances"]:
        m = d["metrics"]
        assert f"{m['alignment']['value']:.3f}" in text
        for name in ("cka", "best_scale_error"):
            ends = m[name]
            assert f"{ends['value']:.3f} [{ends['low']:.3f}, {ends['high']:.3f}]" in text
    assert "less head" in text
    assert "N = 24" in text


def test_training_says_what_it_cost_and_brought(classification):
    text = printed(tables.training(classification.results))
    for part in ("Propulsion", "33,792", "0.784", "accuracy before", "0.001"):
        assert part in text
    assert tables.training({**classification.results, "training": []}) is None


def test_brackets_in_names_are_no_markup(classification):
    results = copy.deepcopy(classification.results)
    results["distances"][0]["tuning"] = "[red]x[/red]"
    assert "[red]x[/red]" in printed(tables.summary(results), width=120)
