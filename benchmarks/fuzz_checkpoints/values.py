"""What a stranger may write where a number, a name or a list belongs."""

from __future__ import annotations

import random
from typing import Any

DEEP: Any = 0
for _ in range(200):
    DEEP = [DEEP]
CODE = "__import__('os').system('fuzz-canary')"
TEXTS = (
    *(
        "",
        "x",
        "x" * 400,
        "x" * 20_000,
        "3",
        "nan",
        "-1",
        "None",
        "\ud800",
        "\0",
        "\n\r\t",
        "../../x",
    ),
    *(
        "\x1b]0;TITLE\x07\x1b[31m[bold]red",
        "\u202eright\u2066\u200b\ufeff\ue000",
        "\x9b31m",
        "$\\frac$",
    ),
    *(
        "<script>alert(1)</script>",
        "/etc/passwd",
        "http://127.0.0.1:9/x",
        CODE,
        "a.b.c",
        "=1+1",
        "e\u0301",
    ),
)
NUMBERS = (
    *(0, 1, -1, 2, 3, 7, 64, 1000, 2**31, 2**62, 2**63, 2**64, -(2**63), 10**30, 10**400),
    *(0.0, -0.0, 0.5, 1e-320, 1e308, float("inf"), float("-inf"), float("nan")),
)
OTHERS: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        [],
        {},
        [[]],
        [None],
        {"a": {}},
        {"": ""},
        [0] * 3000,
        [1, "a", None],
        DEEP,
    ),
    *([CODE], {"0": "a"}, {"query": 10**400}, {"query": "8"}, ["query"], {"[": 1}, {".*": 2}),
)


def hostile(rng: random.Random) -> Any:
    """Return a value of any kind."""
    return rng.choice((rng.choice(TEXTS), rng.choice(NUMBERS), rng.choice(OTHERS)))


def near(rng: random.Random, value: Any) -> Any:
    """Return a value that looks like what stands there: it gets further into the reader."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + rng.choice((-1, 1, 2, 8, -value, value, -2 * value))
    if isinstance(value, float):
        return value * rng.choice((0, -1, 2, 1e300))
    if isinstance(value, str):
        return rng.choice((value[:-1], value + "x", value.upper(), value[::-1], f"{value}.{value}"))
    if isinstance(value, list):
        return rng.choice((value * 2, value[1:], [*value, hostile(rng)], [value], value[::-1]))
    return hostile(rng)
