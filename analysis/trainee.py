"""A model that any method trains in one plain loop: forward, backward, a step of AdamW.

At a constant rate, without clipping, in training mode. Rows and columns (RoCoFT) are trained as
whole weights whose gradients a mask sets to zero elsewhere. That trains the right numbers and saves
no memory: gradients and AdamW's state stay those of the whole weights. It is a cost of this way to
do it, not of the idea.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ntk_propulsion.encoding import encode
from ntk_propulsion.kernels.tuning import count_trained
from ntk_propulsion.kernels.tunings import RowColumn, resolve_tuning
from ntk_propulsion.models import LoadedModel
from ntk_propulsion.tasks import Example
from ntk_propulsion.trajectories.methods import apply_method

Tokens = dict[str, Tensor]


class Trainee:
    """A plain model made ready to be trained by a method, with its optimizer.

    Args:
        model: Changed in place.
        method: A tuning's name.
        learning_rate: Of AdamW, constant.
        degree: Propulsion's k.
        steps: That will be taken; AdaLoRA asks for it.
        seed: Of what adapters draw.

    Attributes:
        model: In training mode, in place.
        trained: How many numbers train.
        seconds: Time in steps so far.
    """

    def __init__(
        self,
        model: nn.Module,
        method: str,
        learning_rate: float,
        *,
        degree: int = 15,
        steps: int = 1,
        seed: int = 0,
    ) -> None:
        tuning = resolve_tuning(method, degree)
        if isinstance(tuning, RowColumn):
            self.trained = mask_rows(model, tuning)
        else:
            apply_method(model, tuning, steps=steps, seed=seed)
            self.trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self.model, self.seconds = model.train(), 0.0
        own = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(own, lr=learning_rate, weight_decay=0.0)

    def backward(self, batch: Tokens, labels: Tensor) -> None:
        """Do forward and backward."""
        self.model(**batch, labels=labels).loss.backward()

    def step(self, batch: Tokens, labels: Tensor) -> None:
        """Do a whole step and forget its gradients."""
        self.backward(batch, labels)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def forward(self, batch: Tokens) -> None:
        """Do a forward alone, as for predictions."""
        self.model.eval()
        with torch.no_grad():
            self.model(**batch)
        self.model.train()


def mask_rows(model: nn.Module, tuning: RowColumn) -> int:
    """Make a model train some rows or columns of its weights; return how many numbers that is.

    The gradients of the others become zero, and AdamW without decay then leaves them in place.
    """
    binding = tuning.bind(model)
    model.requires_grad_(False)
    for feature in binding.features:
        layer = model.get_submodule(feature.module)
        weight = layer.get_parameter("weight")
        across = int(isinstance(layer, nn.Linear) != (tuning.axis == "rows"))  # Conv1D: (in, out)
        kept = torch.arange(weight.shape[across], device=weight.device) < tuning.count
        mask = (kept[None, :] if across else kept[:, None]).to(weight.dtype)
        weight.requires_grad_(True).register_hook(partial(torch.mul, mask))
    return count_trained(binding, model)


def batch_of(
    loaded: LoadedModel, examples: Sequence[Example], pad_to: int | None = None
) -> tuple[Tokens, Tensor]:
    """Return examples as a padded batch, and their labels."""
    labels = torch.tensor([example.label for example in examples], device=loaded.model.device)
    return encode(loaded, examples, pad_to=pad_to).batch, labels
