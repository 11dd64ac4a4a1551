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
        assert f"{m['relative_frobenius']['value']:.3f}" in text
        for name in ("cka", "best_scale_error"):
            ends = m[name]
            assert f"{ends['value']:.3f} [{ends['low']:.3f}, {ends['high']:.3f}]" in text
    assert text.count("less head") == 3
    assert "N = 24" in text


def test_every_other_tuning_has_one_line_without_the_head_if_it_can(classification):
    results = copy.deepcopy(classification.results)
    for tuning, parts in (("lora", ("all", "without_head")), ("head", ("all", "head"))):
        for part in parts:
            row = copy.deepcopy(results["distances"][0]) | {"tuning": tuning, "part": part}
            row["metrics"]["cka"]["value"] = {"all": 0.111, "without_head": 0.222}.get(part, 0.3)
            results["distances"].append(row)
    lines = printed(tables.summary(results)).splitlines()
    (lora,) = (line for line in lines if "LoRA" in line)
    (head,) = (line for line in lines if "head only (whole)" in line)
    assert "0.222 [" in lora
    assert "0.111 [" in head
    assert all(len(line) <= 80 for line in lines)


def test_training_says_what_it_cost_and_brought(classification):
    text = printed(tables.training(classification.results))
    for part in ("Propulsion", "33,792", "0.784", "accuracy before", "0.001"):
        assert part in text
    assert tables.training({**classification.results, "training": []}) is None


def test_brackets_in_names_are_no_markup(classification):
    results = copy.deepcopy(classification.results)
    results["distances"][0]["tuning"] = "[red]x[/red]"
    assert "[red]x[/red]" in printed(tables.summary(results), width=120)
