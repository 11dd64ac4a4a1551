import torch

import ntk_propulsion
from ntk_propulsion.runs.environment import environment


def test_seconds_add_up_and_versions_are_those_that_run():
    found = environment({"kernels": 1.26, "training": 2.0})
    assert found.seconds == 3.3
    assert found.seconds_by_step == {"kernels": 1.3, "training": 2.0}
    assert found.ntk_propulsion == ntk_propulsion.__version__
    assert found.torch == torch.__version__
    assert found.threads == torch.get_num_threads()
    assert found.date.endswith("+00:00")
