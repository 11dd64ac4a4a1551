"""The things worth knowing of a checkpoint, by written rules, the gravest first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ntk_propulsion import words
from ntk_propulsion.auditing.prose import plural
from ntk_propulsion.propulsion.statistics import NEAR_ONE, NEAR_ZERO

Row = Mapping[str, Any]
SEVERITIES = ("broken", "doubtful", "notable", "good to know")
"""Broken: not to be used as it is. Doubtful: not what it should be, look at it."""
OUTSIDE = 0.05
"""From this share of z outside the paper's range on, the range is said not to hold. Ours."""
FEW_OUTLIERS = 0.001
"""Up to this share of outliers nothing is said of them; nor of fewer than `LEAST`. Ours."""
LEAST = 3


class Rule(NamedTuple):
    """When something is worth saying.

    Attributes:
        name: Of the rule.
        severity: One of `SEVERITIES`.
        text: The rule in words.
        says: Returns what to say of a checkpoint's results; empty where the rule does not apply.
    """

    name: str
    severity: str
    text: str
    says: Callable[[Row], str]


def findings(results: Row) -> list[dict[str, str]]:
    """Return what the rules say of one checkpoint's results, the gravest first."""
    found = [
        {"rule": rule.name, "severity": rule.severity, "words": said, "when": rule.text}
        for rule in RULES
        if (said := rule.says(results))
    ]
    return sorted(found, key=lambda each: SEVERITIES.index(each["severity"]))


def _nonfinite(results: Row) -> str:
    bad = results["integrity"]["nonfinite"]
    if not bad:
        return ""
    name = next(iter(bad))
    return (
        f"{plural(sum(bad.values()), 'value')} in {plural(len(bad), 'tensor')} are NaN "
        f"or infinite, first in {name}"
    )


def _thawed(results: Row) -> str:
    found = results["integrity"]
    if found["frozen_base"] != "refuted" or not results["claims_frozen"]:
        return ""
    if found["only_biases"]:
        return ""
    first = found["largest"][0]
    return (
        f"the base is not frozen: {found['undeclared_count']} of its tensors differ, most "
        f"{first['name']}{_by(first)}"
    )


def _by(row: Row) -> str:
    share = row["relative_norm"]
    return "" if share is None else f" (by {words.percent(share)} of its norm)"


def _broken_promise(results: Row) -> str:
    broken = [row["words"] for row in results["promises"] if row["holds"] is False]
    return f"not what the configuration promises: {'; '.join(broken)}" if broken else ""


def _incomplete(results: Row) -> str:
    found = results["integrity"]
    if not found["missing_count"]:
        return ""
    return (
        f"{plural(found['missing_count'], 'tensor')} of the base are not in the file, e.g. "
        f"{found['missing'][0]}"
    )


def _unknown(results: Row) -> str:
    keys = results["integrity"]["unknown"]
    return f"{plural(len(keys), 'key')} fit nothing, e.g. {keys[0]}" if keys else ""


def _ties(results: Row) -> str:
    broken = [tie for tie in results["integrity"]["ties"] if tie["state"] == "broken"]
    if not broken:
        return ""
    return f"tensors that are one in the base differ: {' and '.join(broken[0]['tensors'])}"


def _identical(results: Row) -> str:
    same = results["kind"]["id"] == "identical"
    return "nothing was tuned: every tensor is the base's, to the bit" if same else ""


def _degree(results: Row) -> str:
    if results["degree"] is not None or results["kind"]["id"] != "propulsion":
        return ""
    total = (results["vectors"] or {}).get("total")
    said = "degree unknown: no gain, and no kernel, is known (give --degree)"
    if total:
        first, last = (results["vectors"]["by_degree"][i] for i in (0, -1))
        said += (
            f"; gains would reach from {words.number(first['gain_min'])} to "
            f"{words.number(first['gain_max'])} at degree {first['degree']}, from "
            f"{words.number(last['gain_min'])} to {words.number(last['gain_max'])} at degree "
            f"{last['degree']}"
        )
    return said


def _total(results: Row) -> Row:
    return (results["vectors"] or {}).get("total") or {}


def _dead(results: Row) -> str:
    total = _total(results)
    if not total.get("dead"):
        return ""
    module, neuron, z = total["dead_neurons"][0]
    return (
        f"{plural(total['dead'], 'neuron')} of {total['n']:,} are all but switched off, "
        f"first neuron {neuron} of {module} (z = {words.number(z)})"
    )


def _signs(results: Row) -> str:
    total = _total(results)
    if not total.get("sign_changes"):
        return ""
    even = results["degree"] is not None and results["degree"] % 2 == 0
    follows = "an even degree hides it" if even else "an odd degree turns the neuron's sign"
    return f"{plural(total['sign_changes'], 'entry', 'entries')} of z are negative: {follows}"


def _range(results: Row) -> str:
    total = _total(results)
    if not total or 1 - total["share_in_range"] < OUTSIDE:
        return ""
    low, high = NEAR_ONE
    return (
        f"{words.percent(1 - total['share_in_range'])} of z lie outside the paper's "
        f"[{low}, {high}], from {words.number(total['min'], 4)} to "
        f"{words.number(total['max'], 4)}{_gains(results, total)}"
    )


def _gains(results: Row, total: Row) -> str:
    if results["degree"] is None:
        return " (gains: degree unknown)"
    return (
        f" (gains at degree {results['degree']} from {words.number(total['gain_min'])} to "
        f"{words.number(total['gain_max'])})"
    )


def _inside(results: Row) -> str:
    total = _total(results)
    if not total or 1 - total["share_in_range"] >= OUTSIDE:
        return ""
    low, high = NEAR_ONE
    gains = _gains(results, total)
    if results["degree"] is not None:
        near = words.percent(total["gain_share_in_range"])
        gains += f", of which {near} lie in that range too"
    return (
        f"{words.percent(total['share_in_range'])} of z lie in the paper's [{low}, {high}]{gains}"
    )


def _outliers(results: Row) -> str:
    total = _total(results)
    if not total or total["outliers"] < max(LEAST, FEW_OUTLIERS * total["n"]):
        return ""
    module, neuron, z = total["furthest"][0]
    return (
        f"{plural(total['outliers'], 'entry', 'entries')} of z stand out by a robust z-score "
        f"(furthest: neuron {neuron} of {module}, z = {words.number(z, 4)}); the change is carried "
        f"by about {words.number(total['effective_moved'])} of {total['n']:,}"
    )


def _biases(results: Row) -> str:
    found = results["integrity"]
    if not (found["only_biases"] and results["claims_frozen"]):
        return ""
    return (
        f"{plural(found['undeclared_count'], 'bias', 'biases')} of the base were trained too, "
        "as the public code does by default; weights are frozen"
    )


def _disguised(results: Row) -> str:
    kind = results["kind"]
    merged = kind["id"] in ("merged propulsion", "low rank")
    return f"a plain model by its keys, by its numbers {kind['words']}" if merged else ""


def _dtypes(results: Row) -> str:
    changed = results["integrity"]["dtypes"]
    if not changed:
        return ""
    each = ", ".join(f"{row['tensors']} from {row['base']} to {row['tuned']}" for row in changed)
    return f"stored in another precision than the base: {each}"


def _regime(results: Row) -> str:
    found = (results["kernels"] or {}).get("regime")
    if not found:
        return ""
    said = {
        "holds": "stayed in the kernel regime",
        "weakly": "left the kernel regime in part",
        "not": "left the kernel regime",
        "undecided": "moved too little for the precision to tell the regime",
    }[found["kernel_regime"]]
    return (
        f"the training of {found['of']} {said}: linearization error "
        f"{words.number(found['linearization_error'])}, feature drift "
        f"{words.number(found['feature_drift'])}"
    )


def _left_regime(results: Row) -> str:
    found = (results["kernels"] or {}).get("regime") or {}
    return _regime(results) if found.get("kernel_regime") in ("not", "weakly") else ""


def _kept_regime(results: Row) -> str:
    return "" if _left_regime(results) else _regime(results)


def _learned(results: Row) -> str:
    kernels = results["kernels"] or {}
    found = kernels.get("metric")
    if not found:
        return ""
    return (
        f"{found['name']} on the kernels' {kernels['examples']} examples went from "
        f"{words.number(found['base'])} to {words.number(found['tuned'])}"
    )


def _share(results: Row) -> str:
    total = results["updates"]["total"]
    if not total or total.get("share") is None:
        reason = results["updates"]["reason"]
        return f"how much of it is a Propulsion cannot be said: {reason}" if reason else ""
    sure = " by construction" * (results["kind"]["id"] == "propulsion")
    said = (
        f"a Propulsion explains{sure} {words.percent(total['share'])} of the update of "
        f"{plural(total['layers'], 'layer')} with {total['parameters']:,} numbers; chance is "
        f"{words.percent(total['expected_share'])}"
    )
    if results["updates"]["left_out"]:
        said += f" ({plural(results['updates']['left_out'], 'layer')} left out: "
        said += f"{results['updates']['reason']})"
    if total.get("lora"):
        first = total["lora"][0]
        said += (
            f", the closest update of rank {first['rank']} {words.percent(first['share'])} with "
            f"{first['parameters']:,}"
        )
    return said


def _frozen(results: Row) -> str:
    found = results["integrity"]
    if found["frozen_base"] == "confirmed":
        return (
            f"the base is frozen: {plural(found['compared'], 'tensor')} equal the base's to "
            "the bit, but for what the checkpoint says it trained"
        )
    if found["frozen_base"] == "not in the file":
        said = "base not in the file: nothing to compare"
        trained = len(found["declared"])
        more = "or more " * (trained < found["changed"])
        return f"{said}; it comes with {trained} {more}of its tensors trained" if trained else said
    return ""


def _moved(results: Row) -> str:
    found = results["integrity"]
    if results["claims_frozen"] or not found["largest"]:
        return ""
    first = found["largest"][0]
    return (
        f"{found['changed']} of {found['compared']} tensors differ from the base, most "
        f"{first['name']}{_by(first)}"
    )


def _sound(results: Row) -> str:
    return "" if results["integrity"]["nonfinite"] else "every value is finite"


def _head(results: Row) -> str:
    return f"head: {results['integrity']['head']}"


RULES = (
    Rule("finite", "broken", "any value of the file is NaN or infinite", _nonfinite),
    Rule(
        "frozen-base",
        "broken",
        "a Propulsion or an adapter comes with weights of the base that are not the base's",
        _thawed,
    ),
    Rule("promises", "doubtful", "counts differ from what the configuration says", _broken_promise),
    Rule("missing", "doubtful", "a file with base weights lacks some of them", _incomplete),
    Rule("unknown", "doubtful", "keys fit no dialect", _unknown),
    Rule("identical", "doubtful", "no tensor differs from the base's", _identical),
    Rule("ties", "doubtful", "tensors that the base ties have different values", _ties),
    Rule("dead", "doubtful", f"gains lie below {NEAR_ZERO} in absolute value", _dead),
    Rule("degree", "doubtful", "neither the checkpoint nor --degree says the degree", _degree),
    Rule(
        "regime-left",
        "notable",
        "the verdict on the kernel regime is weakly or not (ntk_propulsion.measurements.regime)",
        _left_regime,
    ),
    Rule(
        "merged",
        "notable",
        "the keys are a plain model's, the update a Propulsion's or of low rank "
        "(ntk_propulsion.auditing.kinds)",
        _disguised,
    ),
    Rule("biases", "notable", "nothing of a frozen base changed but biases", _biases),
    Rule("range", "notable", f"{OUTSIDE:.0%} or more of z lie outside {NEAR_ONE}", _range),
    Rule("signs", "notable", "z, which starts positive, has negative entries", _signs),
    Rule(
        "outliers",
        "notable",
        f"{FEW_OUTLIERS:.1%} of z, and {LEAST} at least, are outliers",
        _outliers,
    ),
    Rule("precision", "notable", "tensors changed their type", _dtypes),
    Rule("learned", "good to know", "a task was given", _learned),
    Rule("regime", "good to know", "the verdict on the regime is holds or undecided", _kept_regime),
    Rule("inside", "good to know", f"less than {OUTSIDE:.0%} of z lie outside {NEAR_ONE}", _inside),
    Rule("share", "good to know", "always", _share),
    Rule("moved", "good to know", "a plain model changed", _moved),
    Rule("frozen", "good to know", "the base is confirmed frozen, or not in the file", _frozen),
    Rule("head", "good to know", "always", _head),
    Rule("sound", "good to know", "every value is finite", _sound),
)
