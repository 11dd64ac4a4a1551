"""An audit's folder: drawn, written, and read back."""

import json
from dataclasses import replace

import numpy as np
import pytest

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels import load_kernels
from ntk_propulsion.report import audit_writer
from ntk_propulsion.report.audit_writer import draw_audit, read_audit, write_audit
from ntk_propulsion.tasks import ExampleFacts
from tests.auditing import samples
from tests.figures.made import HEAD, LABELS, caption, kernels

FIGURES = {
    *("vectors_1", "similarity_1", "updates_1", "ranks_1", "regime_1"),
    *("kernels_base_1", "kernels_tuned_1"),
}


def whole():
    """An audit of one checkpoint with its arrays."""
    measured = samples.kernels(head_modules=HEAD, examples=len(LABELS))
    audit = samples.audit(samples.checkpoint("a/b", kernels=measured))
    examples = tuple(ExampleFacts(i, i, f"t{i}", None, label, 3) for i, label in enumerate(LABELS))
    rng = np.random.default_rng(0)
    vectors = {module: 1 + 0.01 * rng.normal(size=16) for module in (samples.QUERY, samples.DENSE)}
    return replace(
        audit,
        results=replace(audit.results, examples=examples),
        vectors={"a/b": vectors},
        kernels={"a/b": {"base": kernels(), "tuned": {t: 2 * k for t, k in kernels().items()}}},
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("out") / "deep"
    audit = whole()
    return audit, folder, write_audit(audit, folder)


def test_everything_is_written_and_report_json_last(written):
    _, folder, paths = written
    assert paths[-2:] == [folder / "report.html", folder / "report.json"]
    assert {path.stem for path in paths if path.suffix == ".png"} == FIGURES
    assert {path.name for path in paths if path.suffix == ".safetensors"} == {
        "kernels.safetensors",
        "vectors.safetensors",
    }
    assert {path for path in folder.rglob("*") if path.is_file()} == set(paths)


def test_the_page_shows_every_figure(written):
    html = (written[1] / "report.html").read_text()
    assert html.count("data:image/webp;base64,") == len(FIGURES)


def test_what_is_read_back_is_what_was_written(written):
    audit, folder, _ = written
    read = read_audit(folder)
    assert read.record == audit.record
    for module, z in audit.vectors["a/b"].items():
        np.testing.assert_array_equal(read.vectors["a/b"][module], z)
    for point, by in audit.kernels["a/b"].items():
        for tuning, kernel in by.items():
            np.testing.assert_array_equal(read.kernels["a/b"][point][tuning].matrix, kernel.matrix)


def test_a_folder_is_drawn_again_as_it_was(written, tmp_path):
    _, folder, paths = written
    write_audit(read_audit(folder), tmp_path)
    for path in paths:
        if path.suffix in (".png", ".json", ".html"):
            again = tmp_path / path.relative_to(folder)
            assert again.read_bytes() == path.read_bytes(), path


def test_kernels_are_a_file_like_any_of_kernels(written):
    names = {f"a/b/{point}/{t}" for point in ("base", "tuned") for t in ("full", "propulsion")}
    assert {*load_kernels(written[1] / "kernels.safetensors")} == names


def test_a_heat_map_shows_the_distances_of_the_tables_and_its_setting():
    figure = draw_audit(whole())["kernels_base_1"]
    assert figure.pairs.scale == 2.0  # best_scale of the sample's table
    for said in ("a/b", "22.7 M parameters", "task sst2", "N = 6 examples"):
        assert said in caption(figure)


def test_only_what_there_is_data_for_is_drawn():
    bare = samples.checkpoint(
        vectors=None, kernels=None, updates=samples.updates(layers=(), total=None)
    )
    assert draw_audit(samples.audit(bare)) == {}
    two = draw_audit(samples.audit(bare, samples.checkpoint("second", kernels=None)))
    assert {*two} == {"similarity_2", "updates_2", "ranks_2"}


def test_a_vector_that_is_not_finite_is_left_out_of_the_figure():
    audit = whole()
    z = {samples.QUERY: np.array([1.0, np.inf]), samples.DENSE: np.array([1.0, 1.01])}
    figure = draw_audit(replace(audit, vectors={"a/b": z}))["vectors_1"]
    assert {row.get("module") for row in figure.rows} == {None, samples.DENSE}


def test_an_audit_without_arrays_writes_none(tmp_path):
    write_audit(samples.audit(samples.checkpoint(kernels=None)), tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))
    read = read_audit(tmp_path)
    assert (read.vectors, read.kernels) == ({"c": {}}, {"c": {}})


def test_an_interruption_leaves_no_report_json(tmp_path, monkeypatch):
    (tmp_path / "report.json").write_text("{}")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(audit_writer, "audit_page", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_audit(samples.audit(), tmp_path)
    assert not (tmp_path / "report.json").exists()


def test_folders_that_hold_no_audit_are_refused(written, tmp_path):
    with pytest.raises(InputError, match=r"report\.json cannot be read"):
        read_audit(tmp_path)
    path = tmp_path / "report.json"
    path.write_text('{"schema": 2, "results": {}}')
    with pytest.raises(InputError, match="no report of an audit"):
        read_audit(tmp_path)
    whole = json.loads((written[1] / "report.json").read_text())
    path.write_text(json.dumps(whole | {"schema": 1}))
    with pytest.raises(InputError, match="schema 1, not 2: do the audit again"):
        read_audit(tmp_path)


def test_damaged_vectors_are_refused(written, tmp_path):
    (tmp_path / "report.json").write_bytes((written[1] / "report.json").read_bytes())
    (tmp_path / "vectors.safetensors").write_bytes(b"\0" * 20)
    with pytest.raises(InputError, match=r"vectors\.safetensors is damaged"):
        read_audit(tmp_path)


def test_arrays_and_figures_of_an_earlier_audit_do_not_mix_with_the_next(written, tmp_path):
    write_audit(written[0], tmp_path)
    write_audit(samples.audit(samples.checkpoint(vectors=None, kernels=None)), tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))
    assert {path.stem for path in tmp_path.glob("figures/*")} == {
        *("similarity_1", "updates_1", "ranks_1"),
    } - {"similarity_1"}
