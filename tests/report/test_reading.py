import json

import pytest

from ntk_propulsion.errors import InputError
from ntk_propulsion.report.reading import read_experiment, read_report
from ntk_propulsion.report.writer import write_experiment
from tests import tiny_runs


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of its own: the one that other tests share may have no figures."""
    return tiny_runs.do(tmp_path_factory.mktemp("runs") / "read", **tiny_runs.RECORDED)


@pytest.fixture
def copied(finished, tmp_path):
    """A folder with the report of a finished run, to be spoilt."""
    (tmp_path / "report.json").write_bytes((finished / "report.json").read_bytes())
    return tmp_path


def test_what_is_read_is_written_with_the_same_bytes(finished, tmp_path):
    experiment, arrays = read_experiment(finished)
    paths = write_experiment(experiment, arrays, tmp_path)
    assert paths[-1].read_bytes() == (finished / "report.json").read_bytes()
    drawn = {path.name for path in (finished / "figures").iterdir()}
    assert {path.name for path in (tmp_path / "figures").iterdir()} == drawn
    for name in drawn:
        again, before = (folder / "figures" / name for folder in (tmp_path, finished))
        assert again.read_bytes() == before.read_bytes(), name


def test_the_arrays_are_those_of_the_report(finished):
    experiment, arrays = read_experiment(finished)
    assert {(row.point, row.tuning) for row in experiment.results.kernels} == {
        (point, tuning) for point, by in arrays.kernels.items() for tuning in by
    }
    sizes = {row.module: row.n for row in experiment.results.scaling_vectors[:-1]}
    assert {module: z.size for module, z in arrays.vectors.items()} == sizes
    assert [*arrays.trajectories] == [row.method for row in experiment.results.trajectories]


def test_a_report_says_the_answer_and_the_claims(finished):
    report = read_report(finished)
    assert report.results.answer[0].startswith("Before training")
    assert report.claims[0].id == "T1"


def changed(folder, change):
    path = folder / "report.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.update(schema=1), "schema 1, this version reads 2: compare anew"),
        (lambda d: d.pop("claims"), "not the report of a comparison"),
        (lambda d: d.pop("schema"), "missing required field schema"),
        (lambda d: d["results"].pop("task"), "results: object missing required field task"),
        (
            lambda d: d["results"]["distances"][0].update(metrics=[]),
            r"damaged: results\.distances\[0\]\.metrics: expected object",
        ),
    ],
)
def test_a_foreign_or_damaged_report_is_refused_with_the_place(copied, change, said):
    changed(copied, change)
    with pytest.raises(InputError, match=said):
        read_report(copied)


def test_half_a_report_and_none_are_refused(copied):
    path = copied / "report.json"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="not a report: no whole JSON"):
        read_report(copied)
    path.unlink()
    with pytest.raises(InputError, match="name the folder of a finished run"):
        read_report(copied)


def test_a_report_without_its_arrays_cannot_be_drawn_again(copied):
    with pytest.raises(InputError, match=r"kernels\.safetensors"):
        read_experiment(copied)
