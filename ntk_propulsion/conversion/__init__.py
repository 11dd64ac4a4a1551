"""One tuning from form to form: our adapter, the public dialects, a plain model, PEFT's IA3."""

from ntk_propulsion.conversion.convert import FORMS, Conversion, convert_checkpoint
from ntk_propulsion.conversion.reading import read_scaled
from ntk_propulsion.conversion.scaled import ScaledModel

__all__ = ["FORMS", "Conversion", "ScaledModel", "convert_checkpoint", "read_scaled"]
