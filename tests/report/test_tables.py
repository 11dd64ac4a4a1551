import io
from dataclasses import replace

from rich.console import Console

from ntk_propulsion.report import tables


def printed(table, width=80):
    out = io.StringIO()
    Console(file=out, width=width).print(table)
    return out.getvalue()


def test_the_summary_fits_80_columns_with_every_number_whole(classification):
    text = printed(tables.summary(classification.results))
    assert "…" not in text
    for d in classification.results.distances:
        assert f"{d.metrics['relative_frobenius'].value:.3f}" in text
        for name in ("cka", "best_scale_error"):
            found = d.metrics[name]
            assert f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]" in text
    assert text.count("less head") == 3
    assert "N = 24" in text


def test_every_other_tuning_has_one_line_without_the_head_if_it_can(classification):
    distances = list(classification.results.distances)
    for tuning, parts in (("lora", ("all", "without_head")), ("head", ("all", "head"))):
        for part in parts:
            first = distances[0]
            cka = {"all": 0.111, "without_head": 0.222}.get(part, 0.3)
            metrics = {**first.metrics, "cka": replace(first.metrics["cka"], value=cka)}
            distances.append(replace(first, tuning=tuning, part=part, metrics=metrics))
    results = classification.changed(distances=tuple(distances)).results
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
    assert tables.training(classification.changed(training=()).results) is None


def test_brackets_in_names_are_no_markup(classification):
    first, *others = classification.results.distances
    odd = classification.changed(distances=(replace(first, tuning="[red]x[/red]"), *others))
    assert "[red]x[/red]" in printed(tables.summary(odd.results), width=120)
