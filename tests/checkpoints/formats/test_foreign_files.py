import gzip
import io
import lzma
import tarfile
from bz2 import compress as bzip2

import pytest
import torch
from safetensors.torch import save_file

from ntk_propulsion.checkpoints import open_checkpoint
from ntk_propulsion.errors import InputError
from tests.checkpoints.saved import assert_holds


def tar(format, *names):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    return buffer.getvalue()


PAGE = b"\xef\xbb\xbf\n<!DOCTYPE html><html><body>Not found</body></html>"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 438\n"
V7, PAX = tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT
FILES = {
    "model.safetensors": [(LFS, "git lfs pull"), (PAGE, "web page"), (b"<Error>x</Error>", "page")],
    "pytorch_model.bin": [
        (LFS, "git lfs pull"),
        (b"/annex/objects/SHA256E-s1--x\n", "git annex get"),
        (gzip.compress(b"x" * 99), "gzip"),
        (bzip2(b"x" * 99), "bzip2"),
        (lzma.compress(b"x" * 99), "xz"),
        (b"\x28\xb5\x2f\xfd" + b"x" * 99, "zstd"),
        (tar(PAX, "a", "b"), "tar -xf"),
        (tar(V7, "a", "b"), "tar -xf"),
        (tar(V7, "sys_info", "pickle"), "before 0.2"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 99, "HDF5"),
        (b"lmgg\1\0\0\0", "llama.cpp before GGUF"),
        (b"\x93NUMPY\1\0", "one NumPy array"),
    ],
    "x.nemo": [(tar(PAX, "./model_config.yaml", "./model_weights.ckpt"), "model_weights.ckpt")],
    "x.tar.gz": [(gzip.compress(tar(PAX, "a")), "tar -xzf")],
    "model.onnx": [(b"\x08\x07\x12\x07pytorch", "ONNX graph")],
    "tf_model.h5": [(b"\x89HDF\r\n\x1a\n" + b"\0" * 99, "from_tf=True")],
    "model.h5": [(b"\x89HDF\r\n\x1a\n" + b"\0" * 99, "Keras")],
    "saved_model.pb": [(b"\x08\x01\x12", "TensorFlow")],
    "model.ckpt-1.index": [(b"\0\0\2", "TensorFlow")],
    "model.ckpt.data-00000-of-00001": [(b"\0\0\2", "TensorFlow")],
    "flax_model.msgpack": [(b"\x82\xa4bert", "from_flax=True")],
    "model.tflite": [(b"\x1c\0\0\0TFL3", "TensorFlow")],
    "rank0.engine": [(b"ftrt\0\0", "TensorRT"), (b"\0\1\2", "TensorRT")],
    "x.mlmodel": [(b"\x08\x04", "Core ML")],
    "openvino_model.xml": [(b'<?xml version="1.0"?>\n<net name="m">', "OpenVINO")],
    "openvino_model.bin": [(b"\1\2\3", "OpenVINO")],
    "x.pdparams": [(b"\0\1", "Paddle")],
    "x.pte": [(b"\0\0\0\0ET12", "ExecuTorch")],
}


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [(name, content, match) for name, kinds in FILES.items() for content, match in kinds],
)
def test_a_format_that_is_not_read_is_named_with_what_to_do(tmp_path, name, content, match):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=match) as caught:
        open_checkpoint(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).replace(str(path), "")) < 210


def test_what_a_file_holds_goes_before_its_name(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "model.onnx")
    assert_holds(open_checkpoint(tmp_path / "model.onnx"), {"a": torch.ones(2)})


def test_a_git_annex_link_to_nothing_is_said(tmp_path):
    (tmp_path / "model.bin").symlink_to(".git/annex/objects/a/b")
    with pytest.raises(InputError, match="git annex get"):
        open_checkpoint(tmp_path / "model.bin")
    with pytest.raises(InputError, match="git annex get"):
        open_checkpoint(tmp_path)
