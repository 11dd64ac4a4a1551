import pytest

from ntk_propulsion.report.settings import settings_sheets, written


def test_settings_and_environment_are_a_table_each_in_the_order_of_their_fields(classification):
    experiment = classification.experiment
    config, environment = settings_sheets(experiment.config, experiment.environment)
    assert [row[0].text for row in config.rows] == [*type(experiment.config).__dataclass_fields__]
    facts = {row[0].text: row[1].text for row in environment.rows}
    assert facts["peak_memory_bytes"] == "2.00 GiB"
    assert facts["seconds_by_step"] == "theta0 31.5, report 39.7"
    assert facts["gpu"] == ""


@pytest.mark.parametrize(
    ("value", "text"), [(("a", "b"), "a, b"), ({"a": 1}, "a 1"), (None, None), (5e-05, "5e-05")]
)
def test_a_setting_is_written_for_people(value, text):
    assert written("name", value) == text
