"""One tuning from form to form: our adapter, the public dialects, a plain model, PEFT's IA3."""

from importlib import import_module

from ntk_propulsion.conversion.convert import Conversion, convert_checkpoint
from ntk_propulsion.conversion.entries import Entry, plain_entries
from ntk_propulsion.conversion.form import FORMS, Folder, Form, register
from ntk_propulsion.conversion.reading import read_scaled
from ntk_propulsion.conversion.scaled import ScaledModel

# Last: its files register themselves, and may import all that stands above.
import_module(f"{__name__}.forms")

__all__ = [
    "FORMS",
    "Conversion",
    "Entry",
    "Folder",
    "Form",
    "ScaledModel",
    "convert_checkpoint",
    "plain_entries",
    "read_scaled",
    "register",
]
