"""What no scheme explains: weights of integers without anything that says what they stand for."""

from __future__ import annotations

from ntk_propulsion.checkpoints.quantisation.scheme import INTEGERS, SCHEMES, Found, Scheme, Sight
from ntk_propulsion.errors import shown


def find(sight: Sight) -> Found:
    """Refuse a checkpoint whose weights are integers; mention other matrices of bytes."""
    for name in sight.packed:
        if sight.dtype(name) in INTEGERS and name.rpartition(".")[2].endswith("weight"):
            dtype = str(sight.dtype(name)).removeprefix("torch.")
            raise sight.refused(
                f"holds {shown(name)} as {dtype}: codes of a quantised weight, not its numbers",
                "give the folder with its config.json, or save the weights dequantised",
            )
    if not sight.packed:
        return Found()
    example = shown(sight.packed[0])
    return Found(
        notes=(f"{len(sight.packed)} matrices of integers are compared as they are, {example}",)
    )


SCHEMES.append(Scheme("integers", (), find, rank=3))
