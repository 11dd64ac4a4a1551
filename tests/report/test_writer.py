import json
from dataclasses import replace

import pytest

from ntk_propulsion.report import writer
from ntk_propulsion.report.writer import write_experiment


def refuse(constant):
    raise ValueError(f"{constant} is not JSON")


def write(made, folder, **changes):
    experiment = changes.get("experiment", made.experiment)
    return write_experiment(experiment, made.arrays, folder)


@pytest.fixture(scope="module")
def written(regression, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out") / "deep"
    return folder, write(regression, folder)


def test_everything_is_written_and_report_json_last(written):
    folder, paths = written
    assert paths[-2:] == [folder / "report.html", folder / "report.json"]
    names = {path.stem for path in paths[:-2]}
    assert {"kernels_theta0_all", "kernels_theta0_without_head", "distances", "modules_theta0",
            "spectra", "scaling", "training"} <= names  # fmt: skip
    assert {p for p in folder.rglob("*") if p.is_file()} == set(paths)
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in paths[:-2])


def test_report_json_is_strict_and_holds_the_tables(written, regression):
    read = json.loads((written[0] / "report.json").read_text(), parse_constant=refuse)
    assert {*read} == {"schema", "config", "environment", "results", "claims"}
    assert read["schema"] == 2
    assert read["results"]["kernels"][0]["condition_number"] is None
    cka = regression.results.distances[0].metrics["cka"]
    assert read["results"]["distances"][0]["metrics"]["cka"] == vars(cka)
    assert read["results"]["answer"][0].startswith("Before training")
    moved = regression.results.scaling_vectors[0].most_moved[0]
    assert read["results"]["scaling_vectors"][0]["most_moved"][0] == [moved.neuron, moved.z]


def test_the_page_embeds_every_figure_and_its_data(written):
    html = (written[0] / "report.html").read_text()
    names = {path.stem for path in written[1][:-2]}
    assert html.count("data:image/webp;base64,") == len(names)
    assert names == {name for name in names if f'download="{name}.csv"' in html}


def test_what_still_grows_has_a_page_and_no_report_json(classification, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "draw_experiment", lambda *_: {})
    growing = replace(
        classification.changed(training=(), drift=(), scaling_vectors=()).experiment, complete=False
    )
    paths = write(classification, tmp_path, experiment=growing)
    assert paths == [tmp_path / "report.html"]
    assert "Before training" in paths[0].read_text()
    assert write(classification, tmp_path)[-1] == tmp_path / "report.json"


def test_an_interruption_leaves_no_report_json(regression, tmp_path, monkeypatch):
    (tmp_path / "report.json").write_text("{}")
    monkeypatch.setattr(writer, "draw_experiment", lambda *_: {})
    real = writer.write_atomically

    def interrupted(path, data):
        if path.name == "report.html":
            raise KeyboardInterrupt
        real(path, data)

    monkeypatch.setattr(writer, "write_atomically", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(regression, tmp_path)
    assert not (tmp_path / "report.json").exists()


def test_a_figure_that_fails_leaves_the_old_report_alone(regression, tmp_path, monkeypatch):
    (tmp_path / "report.json").write_text("{}")

    def broken(*_):
        raise ValueError

    monkeypatch.setattr(writer, "draw_experiment", broken)
    with pytest.raises(ValueError):  # noqa: PT011
        write(regression, tmp_path)
    assert (tmp_path / "report.json").read_text() == "{}"
