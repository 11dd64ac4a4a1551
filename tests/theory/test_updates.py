import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ntk_propulsion.errors import InputError
from ntk_propulsion.theory import changes
from ntk_propulsion.theory.changes import LayerWeights
from ntk_propulsion.theory.updates import Explained, layer_update, total_update
from tests.theory.layer_pairs import arrays, double, layers, sizes
from tests.theory.theory_kernels import seeds


def turned(layer, turn):
    return LayerWeights(turn(layer.weight), layer.bias, layer.kind)


@given(seeds, sizes)
def test_gains_and_share_are_those_of_least_squares_on_each_neuron(seed, size):
    before, after = layers(seed, size)
    found = layer_update(before, after)
    pairs = (
        (found.weights, before.weight.numpy(), after.weight.numpy()),
        (found.neurons, arrays(before), arrays(after)),
    )
    for fit, V0, V1 in pairs:
        direct = [np.linalg.lstsq(v0[:, None], v1)[0] for v0, v1 in zip(V0, V1, strict=True)]
        np.testing.assert_allclose(fit.gains, np.ravel(direct))
        left = np.sum((V1 - fit.gains[:, None] * V0) ** 2)
        update = np.sum((V1 - V0) ** 2)
        assert fit.explained.update == pytest.approx(update)
        assert fit.explained.base == pytest.approx(np.sum(V0**2))
        assert fit.explained.share == pytest.approx(1 - left / update, abs=1e-9)
        assert 0 <= fit.explained.share <= 1
        assert 0 <= fit.explained.drawn_share <= 1


@given(seeds, sizes, st.sampled_from(["linear", "conv1d", "embedding"]), st.booleans())
def test_a_propulsion_is_explained_whole_and_its_gains_recovered(seed, size, kind, bias):
    rng = np.random.default_rng(seed)
    W, b, gains = rng.normal(size=size), rng.normal(size=size[0]), rng.normal(size=size[0])

    def layer(factor):
        scaled = factor[:, None] * W
        weight = double(scaled if kind == "linear" else scaled.T)
        return LayerWeights(weight, double(factor * b) if bias else None, kind)

    found = layer_update(layer(np.ones(size[0])), layer(gains))
    assert (found.d_out, found.d_in) == size
    for fit in (found.weights, found.neurons):
        np.testing.assert_allclose(fit.gains, gains, atol=1e-12)
        assert fit.explained.share == pytest.approx(1)


def test_an_embeddings_gains_scale_dimensions_not_tokens():
    table = torch.arange(1.0, 7).reshape(3, 2)
    found = layer_update(
        LayerWeights(table, kind="embedding"),
        LayerWeights(table * torch.tensor([2.0, 0.5]), kind="embedding"),
    )
    np.testing.assert_allclose(found.weights.gains, [2, 0.5])
    assert (found.d_out, found.d_in) == (2, 3)
    tokens = LayerWeights(table * torch.tensor([[2.0], [0.5], [1.0]]), kind="embedding")
    assert layer_update(LayerWeights(table, kind="embedding"), tokens).weights.explained.share < 0.9


@given(seeds)
def test_storage_as_conv1d_changes_nothing(seed):
    before, after = layers(seed)
    linear = layer_update(before, after)
    conv = layer_update(
        *(LayerWeights(each.weight.T.contiguous(), each.bias, "conv1d") for each in (before, after))
    )
    np.testing.assert_allclose(conv.neurons.gains, linear.neurons.gains)
    assert conv.neurons.explained.drawn == pytest.approx(linear.neurons.explained.drawn)
    assert conv.low_rank.share(2) == pytest.approx(linear.low_rank.share(2))
    assert conv.low_rank.cost(2) == linear.low_rank.cost(2) == 2 * (5 + 4)


@given(seeds, st.permutations(range(5)), st.floats(0.01, 100))
def test_order_of_neurons_rotation_and_scale_of_inputs_do_not_matter(seed, order, scale):
    before, after = layers(seed, bias=False)
    rotation = torch.linalg.qr(double(np.random.default_rng(seed).normal(size=(4, 4))))[0]
    found = layer_update(before, after)
    gains = {"order": found.weights.gains[list(order)], "inputs": found.weights.gains}
    turns = {
        "order": lambda weight: weight[list(order)],
        "inputs": lambda weight: scale * weight @ rotation,
    }
    for name, turn in turns.items():
        other = layer_update(turned(before, turn), turned(after, turn))
        np.testing.assert_allclose(other.weights.gains, gains[name])
        assert other.weights.explained.share == pytest.approx(found.weights.explained.share)
        assert other.weights.explained.expected_share == pytest.approx(1 / 4)
        assert other.spectrum.entropy_rank == pytest.approx(found.spectrum.entropy_rank)
        assert other.low_rank.share(2) == pytest.approx(found.low_rank.share(2))
        assert other.weight_change.relative_norm == pytest.approx(found.weight_change.relative_norm)


def test_a_random_directions_share_has_the_stated_mean_and_variance():
    before, after = layers(0, (6, 8))
    draws = [layer_update(before, after, seed, spectrum=False) for seed in range(500)]
    for fits, d in (([x.weights for x in draws], 8), ([x.neurons for x in draws], 9)):
        drawn = np.array([fit.explained.drawn for fit in fits])
        one = fits[0].explained
        assert one.expected_share == pytest.approx(1 / d)
        error = math.sqrt(one.variance / len(drawn))
        assert abs(drawn.mean() - one.expected) < 4 * error
        assert drawn.var() == pytest.approx(one.variance, rel=0.3)
        assert one.times_expected == pytest.approx(one.share * d)
        excess = (one.propulsion - one.expected) / math.sqrt(one.variance)
        assert one.deviations == pytest.approx(excess)


def test_random_updates_stay_near_chance_and_propulsions_do_not():
    rng = torch.Generator().manual_seed(0)
    W = torch.randn(300, 200, generator=rng)
    noise = layer_update(LayerWeights(W), LayerWeights(W + torch.randn(300, 200, generator=rng)))
    assert abs(noise.weights.explained.deviations) < 4
    gains = 1 + 0.1 * torch.randn(300, 1, generator=rng)
    part = gains * W + 0.1 * torch.randn(300, 200, generator=rng)
    mixed = layer_update(LayerWeights(W), LayerWeights(part)).weights.explained
    assert mixed.share == pytest.approx(0.5, abs=0.05)
    assert mixed.deviations > 100
    assert mixed.times_expected == pytest.approx(200 * mixed.share)


def test_a_seed_fixes_the_draw_whatever_the_block_and_a_generator_goes_on(monkeypatch):
    before, after = layers(3)
    whole = layer_update(before, after, seed=7)
    monkeypatch.setattr(changes, "BLOCK", 5)
    blocks = layer_update(before, after, seed=7)
    assert blocks.neurons.explained.drawn == pytest.approx(whole.neurons.explained.drawn)
    assert blocks.spectrum.values == pytest.approx(whole.spectrum.values)
    assert blocks.weight_change.norm == pytest.approx(whole.weight_change.norm)
    assert layer_update(before, after, seed=8).weights.explained.drawn != pytest.approx(
        whole.weights.explained.drawn
    )
    generator = np.random.default_rng(7)
    first, second = (layer_update(before, after, generator).weights.explained for _ in range(2))
    assert first.drawn == pytest.approx(whole.weights.explained.drawn)
    assert second.drawn != pytest.approx(first.drawn)


@given(seeds)
def test_totals_add_squares_not_shares(seed):
    first, second = layers(seed, (5, 4), step=0.1), layers(seed + 1, (3, 4), step=2.0)
    found = [layer_update(*pair) for pair in (first, second)]
    total = total_update(iter(found))
    stacked = layer_update(
        *(
            LayerWeights(torch.cat([a.weight, b.weight]), torch.cat([a.bias, b.bias]))
            for a, b in zip(first, second, strict=True)
        )
    )
    for name in ("weights", "neurons"):
        summed, whole = getattr(total, name), getattr(stacked, name).explained
        for measure in ("base", "update", "propulsion", "expected", "variance"):
            assert getattr(summed, measure) == pytest.approx(getattr(whole, measure))
        assert summed.share == pytest.approx(whole.share)
        assert summed.relative_norm == pytest.approx(whole.relative_norm)
    assert (total.layers, total.left_out, total.parameters) == (2, 0, 8)
    S = [np.append(each.spectrum.values, [0] * 4)[:4] ** 2 for each in found]
    update = sum(np.sum(s) for s in S)
    for rank in range(1, 5):
        expected = sum(np.sum(s[:rank]) for s in S) / update
        assert total.low_rank.share(rank) == pytest.approx(expected)
        assert total.low_rank.cost(rank) == min(rank, 4) * 9 + min(rank, 3) * 7


def test_what_no_propulsion_scales_lowers_the_share_of_the_whole():
    half = Explained(update=2.0, propulsion=2.0) + Explained(update=2.0)
    assert half.share == 0.5
    assert Explained().share is Explained().times_expected is Explained().deviations is None


def test_no_update_has_no_share_and_no_spectrum():
    before, _ = layers(0)
    found = layer_update(before, before)
    assert not found.weight_change.changed
    assert found.weight_change.relative_norm == 0
    assert found.weights.gains.tolist() == [1] * 5
    assert found.weights.explained.share is found.spectrum is found.matching_rank is None
    total = total_update([found])
    assert (total.layers, total.neurons.share, total.low_rank) == (1, None, None)


def test_a_dead_neuron_is_moved_by_no_gain():
    before, after = torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.tensor([[1.0, 0.0], [6.0, 8.0]])
    fit = layer_update(LayerWeights(before), LayerWeights(after)).weights
    np.testing.assert_allclose(fit.gains, [1, 2])
    assert fit.explained.share == pytest.approx(25 / 26)


def test_non_finite_entries_are_counted_and_left_out_of_totals():
    before, after = layers(0)
    after.weight[0, :2] = torch.tensor([math.nan, math.inf])
    found = layer_update(before, after)
    assert (found.weight_change.nonfinite_before, found.weight_change.nonfinite_after) == (0, 2)
    assert found.weight_change.norm is found.weight_change.relative_norm is None
    assert found.weights is found.neurons is found.spectrum is found.low_rank is None
    total = total_update([found, layer_update(*layers(1))])
    assert (total.layers, total.left_out) == (1, 1)
    assert total.neurons == layer_update(*layers(1)).neurons.explained


W, b = torch.ones(3, 2), torch.ones(3)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (LayerWeights(W, kind="lniear"), LayerWeights(W), "did you mean linear"),
        (LayerWeights(b), LayerWeights(b), r"weight of shape \(3,\) is no matrix"),
        (LayerWeights(W.int()), LayerWeights(W.int()), "int32 weight"),
        (LayerWeights(W), LayerWeights(W.T), "before and .* after the tuning differ"),
        (LayerWeights(W), LayerWeights(W, kind="conv1d"), "linear layer became conv1d"),
        (LayerWeights(W, b), LayerWeights(W), "only one .* has a bias"),
        (LayerWeights(W, b[:2]), LayerWeights(W, b[:2]), "does not fit 3 neurons"),
    ],
)
def test_layers_that_do_not_fit_are_named(before, after, words):
    with pytest.raises(InputError, match=words):
        layer_update(before, after)
