import json

import pytest

from ntk_propulsion.report import writer
from ntk_propulsion.report.writer import draw, write_report


def refuse(constant):
    raise ValueError(f"{constant} is not JSON")


@pytest.fixture(scope="module")
def written(regression, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out") / "deep"
    paths = write_report(regression.report, regression.kernels, regression.scaling, folder)
    return folder, paths


def test_everything_is_written_and_report_json_last(written):
    folder, paths = written
    assert paths[-2:] == [folder / "report.html", folder / "report.json"]
    assert all(path.is_file() for path in paths)
    names = {path.stem for path in paths[:-2]}
    assert {"kernels_theta0_all", "kernels_theta0_without_head", "distances", "modules_theta0",
            "spectra", "scaling", "training"} <= names  # fmt: skip
    assert {p for p in folder.rglob("*") if p.is_file()} == set(paths)
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in paths[:-2])


def test_report_json_is_strict(written, regression):
    read = json.loads((written[0] / "report.json").read_text(), parse_constant=refuse)
    assert read["results"]["kernels"][0]["condition_number"] is None
    assert (
        read["results"]["distances"][0]["metrics"]
        == (regression.results["distances"][0]["metrics"])
    )
    assert read["schema"] == 1


def test_the_page_embeds_every_figure_and_its_data(written):
    html = (written[0] / "report.html").read_text()
    names = {path.stem for path in written[1][:-2]}
    assert html.count("data:image/webp;base64,") == len(names)
    assert names == {name for name in names if f'download="{name}.csv"' in html}


def test_an_interruption_leaves_no_report_json(regression, tmp_path, monkeypatch):
    (tmp_path / "report.json").write_text("{}")
    monkeypatch.setattr(writer, "draw", lambda *_: {})
    real = writer.write_atomically

    def interrupted(path, data):
        if path.name == "report.html":
            raise KeyboardInterrupt
        real(path, data)

    monkeypatch.setattr(writer, "write_atomically", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_report(regression.report, {}, None, tmp_path)
    assert not (tmp_path / "report.json").exists()


def test_a_figure_that_fails_leaves_the_old_report_alone(regression, tmp_path, monkeypatch):
    (tmp_path / "report.json").write_text("{}")

    def broken(*_):
        raise ValueError

    monkeypatch.setattr(writer, "draw", broken)
    with pytest.raises(ValueError):  # noqa: PT011
        write_report(regression.report, {}, None, tmp_path)
    assert (tmp_path / "report.json").read_text() == "{}"


def test_only_what_was_measured_is_drawn(classification):
    report = {**classification.report}
    report["results"] = {
        **report["results"], "training": [], "scaling_vectors": [], "per_module": [],
    }  # fmt: skip
    kernels = {k: v for k, v in classification.kernels.items() if k.startswith("theta0")}
    drawn = draw(report, kernels, None)
    assert set(drawn) == {
        "kernels_theta0_all", "kernels_theta0_without_head", "distances", "spectra",
    }  # fmt: skip
