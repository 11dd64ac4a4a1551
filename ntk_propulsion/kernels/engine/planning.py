"""How a kernel is computed within a memory budget: groups of layers, chunks of examples.

What must stay in memory for all N examples at once are the inputs and cotangents of the layers
that are being multiplied. Layers that do not fit together wait for another round of forward and
backward passes; the passes themselves run on as many examples at a time as their graph allows.
"""

from __future__ import annotations

from collections.abc import Iterable

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.engine.sites import SiteKey
from ntk_propulsion.kernels.engine.survey import Site, Survey
from ntk_propulsion.kernels.plan import Plan


def make_plan(
    surveys: Iterable[tuple[Survey, int]],
    clusters: list[list[Site]],
    with_outputs: frozenset[SiteKey],
    itemsize: int,
    kernel_bytes: int,
    gradient_bytes: int,
    budget: int,
) -> Plan:
    """Plan the rounds.

    Args:
        surveys: For the rows' batch, and the columns' if it is another: the survey and N.
        clusters: Sites that must be captured together (they share a parameter).
        with_outputs: Keys of the sites whose output is kept too.
        itemsize: Bytes of a number.
        kernel_bytes: What the kernels themselves take.
        gradient_bytes: What one gradient of all parameters takes (the certificate).
        budget: Bytes allowed beside the model.

    Raises:
        InputError: The budget does not even hold the largest cluster and one example.
    """
    pairs = list(surveys)
    examples = sum(n for _, n in pairs)
    outputs = pairs[0][0].outputs
    graph = max(survey.graph_bytes for survey, _ in pairs) or 1
    largest_batch = max(n for _, n in pairs)

    def held(site: Site) -> int:
        kept = 2 if site.key in with_outputs else 1
        return itemsize * examples * (site.input_size + site.output_size * (outputs + kept - 1))

    fixed = kernel_bytes + min(gradient_bytes, budget // 8) + WORKSPACE_BYTES
    sizes = [sum(held(site) for site in cluster) for cluster in clusters]
    room = budget - fixed
    chunk = max(1, min(largest_batch, int(room / 5 / graph)))
    if largest_batch * graph + sum(sizes) <= room:
        chunk = largest_batch
    # a pass over a few examples holds one output's cotangents until they are copied into place
    copied = 0.0 if chunk == largest_batch else chunk / examples / (outputs + 1)
    for_groups = int((room - chunk * graph) / (1 + copied))
    if for_groups < max(sizes, default=0):
        needed = fixed + chunk * graph + max(sizes, default=0)
        raise InputError(
            f"a memory of {budget / 2**30:.2f} GiB is too small: {needed / 2**30:.2f} GiB are "
            "needed for the largest layer; give more, or fewer examples"
        )
    groups: list[set[SiteKey]] = []
    used = for_groups + 1
    peak = 0
    for cluster, size in zip(clusters, sizes, strict=True):
        if used + size > for_groups:
            groups.append(set())
            used = 0
        groups[-1] |= {site.key for site in cluster}
        used += size
        peak = max(peak, used)
    expected = {
        "inputs and cotangents": int(peak * (1 + copied)),
        "graph": chunk * graph,
        "kernels": kernel_bytes,
        "gradient": min(gradient_bytes, budget // 8),
        "workspace": WORKSPACE_BYTES,
    }
    return Plan(tuple(frozenset(g) for g in groups), chunk, budget, expected)


WORKSPACE_BYTES = 64 * 2**20


def cluster_sites(sites: Iterable[Site]) -> list[list[Site]]:
    """Group sites that share a parameter or a layer, in the order of the forward pass."""
    owner: dict[str, int] = {}
    clusters: dict[int, list[Site]] = {}
    for i, site in enumerate(sites):
        marks = {f"parameter {name}" for name in site.parameters} | {f"module {site.module}"}
        joined = {owner[mark] for mark in marks if mark in owner}
        merged = [s for j in sorted(joined) for s in clusters.pop(j)] + [site]
        clusters[i] = merged
        for s in merged:
            for mark in (f"module {s.module}", *(f"parameter {name}" for name in s.parameters)):
                owner[mark] = i
    return sorted(clusters.values(), key=lambda cluster: cluster[0].order)
