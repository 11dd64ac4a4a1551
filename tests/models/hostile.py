"""Configurations of a stranger's: for any model type, hostile names and hostile sizes."""

import random
import re

import transformers
from transformers import CONFIG_MAPPING, PretrainedConfig
from transformers.models.auto import modeling_auto

from ntk_propulsion.models.configurations import LARGEST, MOST

ELSEWHERE = {
    "_name_or_path": "attacker/evil",
    "_attn_implementation": "attacker/kernel",
    "attn_implementation": "attacker/kernel",
    "experts_implementation": "attacker/kernel",
    "auto_map": {"AutoModel": "attacker/evil--m.M", "AutoConfig": "attacker/evil--m.C"},
    "backbone": "attacker/evil",
    "backbone_kwargs": {"pretrained": True},
    "custom_pipelines": {"x": {"impl": "evil.E"}},
    "name_or_path": "attacker/evil",
    "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True},
    "text_encoder": "attacker/evil",
    "tokenizer_class": "attacker/evil",
    "trust_remote_code": True,
    "use_pretrained_backbone": True,
    "vision_model": "attacker/evil",
}
NAMES = [
    *("attacker/evil", "https://127.0.0.1:9/evil", "/etc/passwd", "../../evil", "evil"),
    ["attacker/evil"],
    {"model_type": "timm_backbone", "backbone": "attacker/evil"},
    {"model_type": "timm_wrapper", "architecture": "evil"},
    {"model_type": "maskformer", "backbone": "attacker/evil", "use_pretrained_backbone": True},
    {"model_type": "bert", "_name_or_path": "attacker/evil", "name_or_path": "attacker/evil"},
]
COUNTED = re.compile(r"(layers?|experts?|blocks?|depths?|stages?|hops?)$")
TYPES = sorted(CONFIG_MAPPING.keys())


def sample(seed, n):
    """Some model types, by seed."""
    return random.Random(seed).sample(TYPES, n)


def class_of(model_type):
    """The name of a model's class that takes the type's configuration."""
    tables = [v for k, v in sorted(vars(modeling_auto).items()) if k.endswith("_MAPPING_NAMES")]
    for table in [modeling_auto.MODEL_MAPPING_NAMES, *tables]:
        found = table.get(model_type)
        for name in [found] if isinstance(found, str) else found or ():
            cls = getattr(transformers, str(name), None)
            if isinstance(cls, type) and issubclass(cls, transformers.PreTrainedModel):
                return name
    return "BertModel"


def default(model_type):
    """What the type's class sets by itself; empty where it cannot be made of nothing."""
    try:
        return vars(CONFIG_MAPPING[model_type]())
    except Exception:
        return {}


def named(model_type, value):
    """Every setting that is no number by default, set to a value that leads elsewhere."""
    soft = {
        key: value
        for key, given in default(model_type).items()
        if not isinstance(given, bool | int | float) and not key.startswith("_")
    }
    return soft | {"model_type": model_type}


def sized(settings, pick):
    """The settings with other numbers, `pick(key, value)` of each, nested ones too."""
    found = {}
    for key, value in settings.items():
        if isinstance(value, PretrainedConfig):
            found[key] = sized(vars(value), pick) | {"model_type": value.model_type}
        elif not key.startswith("_") and (new := pick(key, value)) is not None:
            found[key] = new
    return found


def _whole(value):
    return isinstance(value, int) and not isinstance(value, bool)


def _top(key):
    return MOST if COUNTED.search(key) else LARGEST


SIZES = {
    "counts": lambda k, v: MOST if _whole(v) and COUNTED.search(k) else None,
    "all": lambda k, v: _top(k) if _whole(v) else None,
    "two thousand": lambda k, v: 2000 if _whole(v) else None,
    "lists": lambda k, v: [2000] * 3000 if isinstance(v, list) and v and _whole(v[0]) else None,
    "fractions": lambda k, v: 1e7 if isinstance(v, float) else None,
}
