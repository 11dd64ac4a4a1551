"""Pieces of random models that a kernel has no meaning for: they mix examples, or draw."""

from __future__ import annotations

from tests.kernels.random_pieces import Piece, Writer


def _mean_part(w: Writer, h: str) -> str:
    return w.var(f"{h} - {h}.mean(0)")


def _recurrent_over_examples(w: Writer, h: str) -> str:
    out, kind = w.size(), w.pick("RNN", "GRU", "LSTM")
    name = w.module(f"nn.{kind}({w.d}, {out})")
    w.d = out
    return w.var(f"{name}({h})[0]")


def _any_of(*texts: str) -> Piece:
    def write(w: Writer, h: str) -> str:
        text = w.pick(*texts)
        return w.var(text.format(h=h, p=w.parameter(w.d) if "{p}" in text else ""))

    return write


MIXING: list[Piece] = [
    _mean_part,
    _recurrent_over_examples,
    _any_of(
        "F.batch_norm({h}.transpose(1, 2), None, None, training=True).transpose(1, 2)",
        "{h} + 0.1 * {h}[:1]",
        "{h} + {h}.flip(0)",
        "{h} * len({h})",
        "{h}.cumsum(0)",
        "{h}.softmax(0)",
        "{h} / {h}.detach().abs().amax()",
        "{h} + {h}[-1:].detach() * {p}",
        "{h} + torch.arange(len({h}))[:, None, None] * {p}",
        "torch.einsum('nm,mtd->ntd', ({h}.flatten(1) @ {h}.flatten(1).t()).softmax(-1), {h})",
        "torch.where({h} > {h}.mean(), {h}, 0.5 * {h})",
    ),
]
RANDOM: list[Piece] = [
    _any_of(
        "F.dropout({h}, 0.5)",
        "{h} + torch.randn({h}.shape, dtype={h}.dtype)",
        "{h} + torch.randn({h}.shape[1:], dtype={h}.dtype) * {p}",
    )
]
