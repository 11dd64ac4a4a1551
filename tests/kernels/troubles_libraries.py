"""Kinds H and P: models in wrappers, and what makes a library fail with words of its own."""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.optim.swa_utils import AveragedModel

from ntk_propulsion.kernels.outputs import Loss
from tests.kernels.troubles import Given, Net, ids, sequences, trouble, vectors

# -- H: what the head is must not depend on a prefix


class Base(nn.Module):
    """What a model was pretrained as."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = nn.Linear(4, 5), nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.inner(x)))


class Classifier(nn.Module):
    """Names its base as models of transformers do; its head has two layers."""

    base_model_prefix = "base"

    def __init__(self) -> None:
        super().__init__()
        self.base, self.dense, self.out = Base(), nn.Linear(5, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.dense(self.base(x))))


class Holder(nn.Module):
    """A wrapper of one's own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.model(*args, **kwargs)


def compiled(model: nn.Module) -> nn.Module:
    """A compiled model that runs as it stands."""
    return torch.compile(model, backend="eager")  # type: ignore[return-value]


HEAD = ("dense.weight", "dense.bias", "out.weight", "out.bias")
for _name, _wrap, _prefix in (
    ("none", lambda model: model, ""),
    ("data_parallel", nn.DataParallel, "module."),
    ("averaged", AveragedModel, "module."),
    ("compiled", compiled, "_orig_mod."),
    ("held", Holder, "model."),
    ("held_twice", lambda model: Holder(Holder(model)), "model.model."),
):

    def _wrapped(wrap: Any = _wrap) -> Given:
        return wrap(Classifier().double()), vectors()

    _names = tuple(_prefix + name for name in HEAD)
    trouble("H", "kernel", name=f"wrapped_{_name}")(_wrapped)
    trouble("H", "kernel", name=f"head_of_wrapped_{_name}", tuning="head", head=_names)(_wrapped)


@trouble("H", "kernel", tuning="head", head=("1.weight", "1.bias"))
def head_of_layers_in_a_row() -> Given:
    return nn.Sequential(Base(), nn.Linear(5, 2)).double(), vectors()


# -- P


@trouble("P", "kernel")
def sparse_gradients() -> Given:
    table = nn.Embedding(10, 4, sparse=True)
    return nn.Sequential(table, nn.Flatten(), nn.Linear(12, 2)).double(), ids()


@trouble("P", "kernel")
def sparse_gradients_of_a_bag() -> Given:
    bag = nn.EmbeddingBag(10, 4, sparse=True, mode="sum")
    return nn.Sequential(bag, nn.Linear(4, 2)).double(), ids()


@trouble("P", "kernel", tolerance=1e-4, keywords={"dtype": "float64"})
def old_weight_norm_in_another_dtype() -> Given:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = nn.utils.weight_norm(nn.Linear(4, 5))
    net, x = nn.Sequential(layer, nn.Tanh(), nn.Linear(5, 2)), vectors().float()
    net(x)
    return net, x


@trouble("P", "kernel", tolerance=1e-4, keywords={"dtype": "float64"})
def pruned_in_another_dtype() -> Given:
    layer = prune.l1_unstructured(nn.Linear(4, 5), "weight", 3)
    net, x = nn.Sequential(layer, nn.Tanh(), nn.Linear(5, 2)), vectors().float()
    net(x)
    return net, x


for _norm in (
    parametrizations.weight_norm,
    parametrizations.spectral_norm,
    parametrizations.orthogonal,
):

    def _parametrized(norm: Any = _norm) -> Given:
        layers = nn.Sequential(norm(nn.Linear(4, 4)), nn.Tanh(), nn.Linear(4, 2))
        return layers.double(), vectors()

    trouble("P", "kernel", name=f"parametrized_{_norm.__name__}")(_parametrized)


@trouble("P", "kernel")
def extra_state() -> Given:
    class Layer(nn.Linear):
        def get_extra_state(self) -> dict[str, Any]:
            return {"scale": 1.0, "names": ["a"]}

        def set_extra_state(self, state: Any) -> None:
            pass

    return nn.Sequential(Layer(4, 5), nn.Tanh(), nn.Linear(5, 2)).double(), vectors()


@trouble("P", "refused", "meta")
def on_the_meta_device() -> Given:
    return nn.Sequential(nn.Linear(4, 5, device="meta"), nn.Linear(5, 2, device="meta")), vectors()


@trouble("P", "refused", "meta")
def partly_on_the_meta_device() -> Given:
    return Net(lambda m, h: m.c(h), c=nn.Linear(5, 5, device="meta")), vectors()


@trouble("P", "refused", "lazy|uninitiali[sz]ed|first")
def not_yet_called() -> Given:
    return nn.Sequential(nn.LazyLinear(5), nn.Tanh(), nn.Linear(5, 2)).double(), vectors()


@trouble("P", "either", tuning="bitfit", tolerance=1e-4)
def weights_in_float8() -> Given:
    net = Net(lambda m, h: h @ m.w.to(h.dtype)).float()
    weight = torch.randn(5, 5).to(torch.float8_e4m3fn)
    net.w = nn.Parameter(weight, requires_grad=False)
    return net, vectors().float()


@trouble("P", "either", tuning="bitfit", tolerance=1e-4)
def weights_in_int8() -> Given:
    net = Net(lambda m, h: h @ (m.w * 0.01)).float()
    weight = torch.randint(-100, 100, (5, 5), dtype=torch.int8)
    net.w = nn.Parameter(weight, requires_grad=False)
    return net, vectors().float()


def plain() -> Given:
    """What some troubles are made of, without the trouble."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net(), vectors()


@trouble("P", "either", truth=plain)
def made_in_inference_mode() -> Given:
    with torch.inference_mode():
        return Net(), vectors()


@trouble("P", "either", truth=plain)
def batch_made_in_inference_mode() -> Given:
    model = Net()
    with torch.inference_mode():
        return model, vectors()


@trouble("P", "either", truth=plain)
def exported() -> Given:
    model, x = plain()
    size = torch.export.Dim("n", min=1, max=64)
    program = torch.export.export(model, (x[:3],), dynamic_shapes=({0: size},))
    return program.module(), x


@trouble("P", "either", truth=plain)
def sparse_batch() -> Given:
    class Densify(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.to_dense() if x.is_sparse else x)

    return Densify(), vectors().to_sparse()


@trouble("P", "either", truth=plain)
def batch_within_a_batch() -> Given:
    class Nested(Net):
        def forward(self, inputs: dict[str, Any]) -> Tensor:
            return super().forward(inputs["more"][0])

    return Nested(), {"inputs": {"more": (vectors(), None)}}


@trouble("P", "either")
def pairs_within_a_batch() -> Given:
    class Nested(Net):
        def forward(self, pair: tuple[Tensor, Tensor], y: Tensor) -> Tensor:
            return super().forward(pair[0] + pair[1] * y)

    return Nested(), ((vectors(), vectors()), vectors())


@trouble("P", "refused", "outputs")
def hidden_states_before_the_logits() -> Given:
    class Both(Net):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            h = torch.tanh(self.a(x))
            return h, self.b(h.mean(1))

    return Both(), sequences()


@trouble("P", "refused", "logits|outputs|output")
def nothing_comes_out() -> Given:
    class Silent(Net):
        def forward(self, x: Tensor) -> None:
            super().forward(x)

    return Silent(), vectors()


@trouble("P", "refused", "outputs|float|gradient|logits|integer")
def classes_come_out() -> Given:
    class Decided(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).argmax(1, keepdim=True)

    return Decided(), vectors()


@trouble("P", "either", "gradient|grad|reach|trains|param")
def all_under_no_grad() -> Given:
    class Shut(Net):
        @torch.no_grad()
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)

    return Shut(), vectors()


@trouble("P", "refused", "param|train|reach", tuning="trainable")
def nothing_trains() -> Given:
    return Net().requires_grad_(False), vectors()


@trouble("P", "kernel")
def parameters_of_every_size() -> Given:
    def sized(m: Any, h: Tensor) -> Tensor:
        return h * m.one + m.none.sum() + m.long.flatten()[:5] + m.wide[:, 0]

    parts = {"one": (), "none": (0,), "long": (1, 1, 5, 1), "wide": (5, 1)}
    return Net(sized, **{k: torch.randn(s) for k, s in parts.items()}), vectors()


@trouble("P", "kernel")
def parameters_of_odd_strides() -> Given:
    net = Net(lambda m, h: h @ m.w)
    net.w = nn.Parameter(torch.randn(5, 5, dtype=torch.float64).t())
    net.a.weight = nn.Parameter(torch.randn(4, 5, dtype=torch.float64).t())
    return net, vectors().t().contiguous().t()


@trouble("P", "kernel")
def a_batch_that_requires_a_gradient() -> Given:
    return Net(), vectors().requires_grad_()


@trouble("P", "kernel", outputs=Loss([0, 1, 1, 0, 1, 0]))
def losses_of_one_batch() -> Given:
    return Net(), vectors()


@trouble("P", "refused", "mixes|quantised")
def quantised_layers() -> Given:
    """Dynamic quantisation: one scale for the activations of all examples."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
        made = torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8)
    return made.append(nn.Linear(2, 2)), vectors().float()


@trouble("P", "kernel")
def attention_by_the_fast_path() -> Given:
    layer = nn.TransformerEncoderLayer(5, 1, 6, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=True)
    return Net(lambda m, h: m.e(h), e=encoder).eval(), sequences()


@trouble("P", "kernel")
def functional_batch_norm_of_kept_statistics() -> Given:
    def kept(m: Any, h: Tensor) -> Tensor:
        return F.batch_norm(h, torch.zeros(5).double(), torch.ones(5).double(), m.w, training=False)

    return Net(kept, w=torch.randn(5)), vectors()
