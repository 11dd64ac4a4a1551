"""docs/checkpoints.md names what is read and what is refused."""

from pathlib import Path

import pytest

from ntk_propulsion.checkpoints.format import FILES, FOLDERS
from ntk_propulsion.checkpoints.quantisation.scheme import SCHEMES

PAGE = (Path(__file__).parents[2] / "docs" / "checkpoints.md").read_text().lower()
OWN_WORDS = {
    "codes with scales, by a scheme that nothing names": "nothing that says their scale",
    "a part of deepspeed's weights": "deepspeed",
    "another format": "named and refused",
    "pickled state dict": "`torch.save` of a state dict",
    "megatron-lm's parts": "megatron-lm",
    "tensorflow's": "tensorflow",
    "megatron": "megatron-lm",
}


@pytest.mark.parametrize("name", sorted({scheme.name for scheme in SCHEMES}))
def test_every_scheme_of_quantisation_is_on_the_page(name):
    assert OWN_WORDS.get(name.lower(), name.lower().removesuffix("s")) in PAGE


@pytest.mark.parametrize("name", sorted({format.name for format in (*FILES, *FOLDERS)}))
def test_every_form_is_on_the_page(name):
    shown = OWN_WORDS.get(name.lower())
    words = [shown] if shown else name.lower().replace("(", "").replace(")", "").split()
    said = [word for word in words if word in PAGE and word not in ("a", "an", "of", "file", "or")]
    assert said, f"{name} is not on docs/checkpoints.md"
