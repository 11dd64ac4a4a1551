import sys

import pytest

from ntk_propulsion.errors import InputError
from ntk_propulsion.runs.packages import packaged_path


def test_a_package_s_file_is_found_without_importing_it(tmp_path, monkeypatch):
    (tmp_path / "carrier").mkdir()
    (tmp_path / "carrier" / "__init__.py").write_text("raise AssertionError('imported')")
    (tmp_path / "carrier" / "data.csv").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    assert packaged_path("carrier", "data.csv", "carrier") == tmp_path / "carrier" / "data.csv"
    assert "carrier" not in sys.modules
    with pytest.raises(InputError, match=r"no other\.csv .*--force-reinstall carrier-package"):
        packaged_path("carrier", "other.csv", "carrier-package")


@pytest.mark.parametrize("module", ["no_such_package", "json.decoder"])
def test_what_is_no_installed_package_says_what_to_install(module):
    with pytest.raises(InputError, match="pip install --no-deps some-package"):
        packaged_path(module, "x", "some-package")
