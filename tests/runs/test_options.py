from dataclasses import dataclass, fields

from ntk_propulsion.runs.options import option


@dataclass(frozen=True)
class Chosen:
    rate: float | None = option(None, "How fast.", unset="chosen by the sweep")


def test_a_field_has_its_default_and_says_what_it_means():
    assert Chosen().rate is None
    (rate,) = fields(Chosen)
    assert rate.metadata == {"help": "How fast.", "unset": "chosen by the sweep"}
