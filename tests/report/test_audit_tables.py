"""The verdicts of an audit in a terminal."""

import io

from rich.console import Console

from ntk_propulsion.report.audit_tables import verdict_table
from tests.auditing import samples


def shown(*checkpoints, width=100):
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(verdict_table(samples.audit(*checkpoints).results))
    return console.file.getvalue()


def test_a_single_checkpoint_s_verdicts_stand_in_words():
    text = shown()
    assert "Audit against minilm" in text
    assert "confirmed: 0 of 38 tensors outside the head differ" in text
    assert "propulsion: a Propulsion of degree 5" in text


def test_several_have_a_column_each_and_short_verdicts():
    text = shown(
        samples.checkpoint("one"), samples.checkpoint("two", integrity=samples.thawed()), width=60
    )
    (line,) = (line for line in text.splitlines() if "frozen-base" in line)
    assert line.split() == ["frozen-base", "confirmed", "refuted"]
    assert "tensors outside" not in text


def test_every_question_is_a_line_and_brackets_stay_text():
    text = shown(samples.checkpoint("[red]c"))
    assert "[red]c" in text
    for question in ("kind", "finite", "promises", "ties", "range", "propulsion-share", "regime"):
        assert question in text


def test_nothing_is_wider_than_the_terminal():
    assert max(map(len, shown(width=80).splitlines())) <= 80
