"""Names that pickles of training code ask for: which may be passed over, and why the others not.

Nothing that a pickle names is ever looked up here, so that a record of any name is harmless to us.
But the file is someone's next `torch.load`: what could run code there is refused, and so is what
nobody has looked at. Hence a list of what is allowed, not of what is forbidden.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from ntk_propulsion.errors import shown


class Global(NamedTuple):
    """The name of something that a pickle asks for, e.g. torch._utils and _rebuild_tensor_v2."""

    module: str
    name: str


_BUILTINS = "set frozenset list dict tuple int float complex bool str bytes bytearray slice range"
_EXACT = {
    "argparse": "Namespace",
    "builtins": f"{_BUILTINS} object",
    "__builtin__": f"{_BUILTINS} object long unicode xrange",
    "collections": "OrderedDict defaultdict Counter deque",
    "copyreg": "_reconstructor",
    "copy_reg": "_reconstructor",
    "_codecs": "encode",
    "datetime": "datetime date time timedelta timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "pathlib": "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath",
    "pathlib._local": "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath",
    "types": "SimpleNamespace",
    "typing": "Any",
    "uuid": "UUID SafeUUID",
    "numpy": "ndarray dtype bool_ float64 float32 float16 int64 int32 int16 int8 uint8",
    "numpy.core.multiarray": "_reconstruct scalar",
    "numpy._core.multiarray": "_reconstruct scalar",
    "numpy.core.numeric": "_frombuffer",
    "numpy._core.numeric": "_frombuffer",
    "torch": "Size device memory_format layout finfo iinfo",
    "torch.serialization": "_get_layout",
    "omegaconf.dictconfig": "DictConfig",
    "omegaconf.listconfig": "ListConfig",
    "omegaconf.base": "ContainerMetadata Metadata ContainerKeyType",
    "omegaconf.nodes": "AnyNode BooleanNode BytesNode EnumNode FloatNode IntegerNode PathNode "
    "StringNode",
    "lightning.fabric.utilities.data": "AttributeDict",
    "lightning_fabric.utilities.data": "AttributeDict",
    "pytorch_lightning.utilities.parsing": "AttributeDict",
    "lightning.pytorch.utilities.parsing": "AttributeDict",
    "deepspeed.utils.tensor_fragment": "fragment_address tensor_fragment",
    "deepspeed.runtime.fp16.loss_scaler": "LossScaler DynamicLossScaler",
    "deepspeed.runtime.zero.config": "ZeroStageEnum DeepSpeedZeroConfig",
    "deepspeed.runtime.zero.offload_config": "OffloadDeviceEnum DeepSpeedZeroOffloadOptimizerConfig"
    " DeepSpeedZeroOffloadParamConfig",
    "transformers.training_args": "TrainingArguments OptimizerNames ParallelMode",
    "transformers.training_args_seq2seq": "Seq2SeqTrainingArguments",
    "transformers.trainer_utils": "HubStrategy IntervalStrategy SaveStrategy SchedulerType "
    "EvaluationStrategy FSDPOption RemoveColumnsCollator",
    "transformers.trainer_pt_utils": "AcceleratorConfig",
    "transformers.trainer_callback": "TrainerState TrainerControl",
    "transformers.configuration_utils": "PretrainedConfig PreTrainedConfig",
    "transformers.generation.configuration_utils": "GenerationConfig",
    "transformers.integrations.deepspeed": "HfTrainerDeepSpeedConfig HfDeepSpeedConfig",
    "accelerate.state": "PartialState AcceleratorState GradientState",
}
HARMLESS = {Global(module, name) for module, names in _EXACT.items() for name in names.split()}
"""Data: a call of one of these makes a value and does nothing else."""

_CLASSES = (
    (r"transformers\.models\.\w+\.configuration_\w+", r"\w+Config"),
    (r"torch\.distributed\.checkpoint\.metadata", r"\w+"),
    (r"torch\.distributed\._shard\.sharded_tensor\.metadata", r"TensorProperties|MEM_FORMAT\w+"),
    (r"torch\.distributed\.checkpoint\.filesystem", r"_StorageInfo|_StoragePrefix"),
    (r"torch\.optim(\.\w+)?", r"[A-Z]\w*"),
    (r"torch\.optim\.lr_scheduler", r"[A-Z]\w*"),
    (r"accelerate\.utils\.dataclasses", r"[A-Z]\w*"),
    (r"numpy\.dtypes", r"\w+DType"),
    (r"(lightning\.pytorch|pytorch_lightning)\.\w+\.states", r"[A-Z]\w*"),
    (
        r"(deepspeed|trl|peft)\.([a-z_\d]+\.)*[a-z_\d]*config[a-z_\d]*",
        r"[A-Z]\w*(Config|Type|Enum)",
    ),
    (r"peft\.utils\.peft_types", r"\w+Type"),
)
_PATTERNS = [(re.compile(module), re.compile(name)) for module, name in _CLASSES]
"""Classes of configurations and states by module, where there are too many to list."""

_RUNS = re.compile(
    r"(os|io|nt|posix|posixpath|subprocess|sys|shutil|socket|ctypes|importlib|runpy|pty|code|types"
    r"|builtins|__builtin__|operator|functools|_io|webbrowser|pickle|_pickle|marshal|pip|commands"
    r"|multiprocessing|asyncio|threading|timeit|cProfile|pdb|bdb|inspect|urllib|http|requests"
    r"|torch\.(hub|jit|serialization|storage|utils|_inductor|_dynamo)|numpy\.testing)(\.|$)"
)
"""Roots of names that could run code: for the words of a refusal alone."""

_TENSORS = {
    "_rebuild_sparse_tensor": "sparse tensors: save them with to_dense()",
    "_rebuild_qtensor": "quantised tensors: save them with dequantize()",
    "_rebuild_nested_tensor": "nested tensors: save them with to_padded_tensor()",
    "_rebuild_device_tensor_from_numpy": "tensors of another device: save them with cpu()",
    "_rebuild_device_tensor_from_cpu_tensor": "tensors of another device: save them with cpu()",
    "_rebuild_meta_tensor_no_storage": "tensors on the meta device, which have no numbers: load "
    "the weights before saving",
    "_rebuild_wrapper_subclass": "tensors of a subclass: save plain ones (torchao: "
    "dequantize(); DTensor: full_tensor())",
    "_load_from_bytes": "tensors pickled by themselves: torch.save() the dictionary of them",
    "_rebuild_from_type_v2": "tensors with attributes or of a subclass: save each as "
    "tensor.detach().clone()",
}


class AllowedNames(Collection[Global]):
    """The names that may be asked for: some exactly, and what is harmless."""

    def __init__(self, names: Iterable[Global]) -> None:
        self._names = {*names, *HARMLESS}

    def __contains__(self, asked: object) -> bool:
        if asked in self._names:
            return True
        return isinstance(asked, Global) and any(
            module.fullmatch(asked.module) and name.fullmatch(asked.name)
            for module, name in _PATTERNS
        )

    def __iter__(self) -> Iterator[Global]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def refusal(module: str, name: str) -> str:
    """Return why a name that is not allowed is refused, and what to do instead."""
    asked = f"its pickle asks for {shown(f'{module}.{name}')}"
    if name in _TENSORS and module.startswith("torch."):
        return f"{asked}: {_TENSORS[name]}"
    if _RUNS.match(module):
        return (
            f"{asked}, which could run code: nothing of it was run; load the file nowhere, and get "
            "the weights as safetensors"
        )
    if re.match(r"_*[A-Z]", name.rpartition(".")[2]):
        return (
            f"{asked}, a class: it holds a whole object, as torch.save(model) writes it, not only "
            "tensors: nothing of it was run; save model.state_dict(), best as safetensors"
        )
    return (
        f"{asked}, not only for tensors: nothing of it was run; save the model's state_dict(), "
        "best as safetensors"
    )
