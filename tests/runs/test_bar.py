"""What `progress=` may be."""

import pytest

from ntk_propulsion.runs.bar import shown


def test_a_function_is_called_as_it_is_and_nothing_is_nothing() -> None:
    def told(done: int, total: int) -> None:
        pass

    with shown(told, "work") as tell:
        assert tell is told
    for nothing in (None, False):
        with shown(nothing, "work") as tell:
            assert tell is None


def test_true_shows_a_bar_with_the_work_s_name_and_both_numbers(capsys) -> None:
    with shown(True, "kernels") as tell:
        tell(1, 3)
        tell(3, 3)
    shown_text = capsys.readouterr().out
    assert "kernels" in shown_text
    assert "3/3" in shown_text


def test_a_notebook_without_widgets_shows_it_as_text() -> None:
    nbclient = pytest.importorskip("nbclient", reason="notebooks are not installed")
    nbformat = pytest.importorskip("nbformat", reason="notebooks are not installed")
    pytest.importorskip("ipykernel", reason="notebooks are not installed")
    code = (
        "import sys; sys.modules['ipywidgets'] = None\n"
        "from ntk_propulsion.runs.bar import shown\n"
        "with shown(True, 'kernels') as tell:\n    tell(3, 3)"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbclient.NotebookClient(notebook, kernel_name="python3").execute()
    shown_text = "".join(output.get("text", "") for output in notebook.cells[0].outputs)
    assert "3/3" in shown_text
