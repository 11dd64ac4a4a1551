"""A plan in a line."""

from ntk_propulsion.kernels import Plan


def test_a_plan_says_rounds_examples_and_memory() -> None:
    groups = (frozenset({("linear", "w", None, 0)}), frozenset())
    plan = Plan(groups, 16, 3 * 2**30, {"graph": 2**29, "kernels": 2**30})
    assert str(plan) == (
        "2 round(s) of passes, 16 examples a pass; expected peak 1.50 GiB beside the model "
        "(graph 0.50, kernels 1.00), budget 3.00 GiB"
    )
