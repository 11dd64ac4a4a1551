import pytest
import torch

from ntk_propulsion.conversion import convert_checkpoint
from tests.conversion.models import (
    refused,
    save_base,
    wrap_publicly,
)


def test_a_degree_is_asked_for_where_nobody_says_it_and_must_not_contradict(made, tmp_path):
    refused(made[0], "merged", tmp_path, "--degree 4: the source says", base=made[1], degree=4)
    convert_checkpoint(made[0], "wrapped", out=tmp_path / "w", base=made[1])
    for to in ("adapter", "merged"):
        refused(tmp_path / "w", to, tmp_path, "add --degree", base=made[1])
    refused(tmp_path / "w", "merged", tmp_path, "whole number", base=made[1], degree=0)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        ('{"model_type": "bert"}', "architectures"),
        ('{"model_type": "bert", "architectures": ["NoSuch"]}', "'NoSuch'"),
        ('{"model_type": "bert", "architectures": ["pipeline"]}', "'pipeline'"),
        (
            '{"model_type": "bert", "architectures": ["BertModel"], "num_hidden_layers": 99999999}',
            "99999999, more than any model has",
        ),
        ('{"model_type": "nothing", "architectures": ["BertModel"]}', "makes no BertModel"),
    ],
)
def test_a_base_whose_configuration_is_of_no_known_model_is_refused(tmp_path, content, said):
    public = wrap_publicly(save_base(tmp_path / "base", "bert"), {"classifier"}, 2)
    torch.save(public.state_dict(), tmp_path / "t.bin")
    (tmp_path / "base" / "config.json").write_text(content)
    refused(tmp_path / "t.bin", "merged", tmp_path, said, base=tmp_path / "base", degree=2)
