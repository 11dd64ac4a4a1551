import subprocess
import sys
from dataclasses import fields
from pathlib import Path

from ntk_propulsion.experiment.settings import Settings
from ntk_propulsion.runs.options import meaning_of

ROOT = Path(__file__).parents[2]


def test_every_setting_says_what_it_means():
    assert all(meaning_of(field).endswith(".") for field in fields(Settings))


def test_settings_need_no_torch():
    code = "import sys, ntk_propulsion.experiment.settings; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
