import pytest
import torch

from ntk_propulsion.tasks import KINDS
from ntk_propulsion.theory.losses import make_loss

LOGITS = torch.tensor([[0.5, -1.0], [2.0, 0.0], [-0.5, 0.5]], dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
def test_the_training_loss_is_the_one_that_the_theory_predicts_for(kind):
    facts = KINDS[kind]
    logits = LOGITS if facts.stratified else LOGITS[:, :1]
    labels = torch.tensor([0, 1, 1])
    loss = make_loss(facts.loss, labels.numpy(), *logits.shape)
    expected = loss.value(logits.numpy())
    if kind == "regression":  # make_loss takes whole numbers for classes, here they are values
        expected = ((logits[:, 0] - labels) ** 2).mean()
    assert float(facts.training_loss(logits, labels)) == pytest.approx(float(expected))


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_that_is_least_predicts_the_labels(kind):
    facts = KINDS[kind]
    labels = torch.tensor([0.0, 1.0, 1.0])
    targets = torch.from_numpy(facts.targets(labels.numpy(), 2))
    best, worse = (facts.training_loss(sign * 9 * targets, labels) for sign in (1, -1))
    assert best < worse
    assert facts.predictions(targets).tolist() == labels.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_the_leading_score_is_among_the_scores_and_right_predictions_have_one(kind):
    facts = KINDS[kind]
    assert facts.scores([0, 1, 1], [0, 1, 1], facts.metric)[facts.metric] == pytest.approx(1)
