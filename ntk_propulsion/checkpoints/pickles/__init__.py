"""What `torch.save` writes, read without running it: opcodes, archives, names, the state dict."""

from ntk_propulsion.checkpoints.pickles.file import PickleFile

__all__ = ["PickleFile"]
