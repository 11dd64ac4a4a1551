import pytest
import torch

from ntk_propulsion.errors import InputError
from ntk_propulsion.models.loading import load_model
from ntk_propulsion.models.probe import fit_probe
from ntk_propulsion.models.scoring import evaluate
from ntk_propulsion.models.tokens import encode
from tests.tiny_folders import make_task, save_model


@pytest.mark.parametrize("classes", [3, 0])
def test_predictions_stand_in_the_examples_order_whatever_the_batch_size(tmp_path, classes):
    task = make_task(classes=classes, pairs=True)
    loaded = load_model(str(save_model(tmp_path)), task, dtype=torch.float64)
    loaded.model.train().bert.encoder.eval()
    modes = [module.training for module in loaded.model.modules()]
    result = evaluate(loaded, task, task.train, batch_size=7)
    assert [module.training for module in loaded.model.modules()] == modes
    loaded.model.eval()
    with torch.no_grad():
        logits = loaded.model(**encode(loaded, task.train).batch).logits
    torch.testing.assert_close(result.logits, logits)
    expected = logits.argmax(-1).tolist() if classes else logits[:, 0].tolist()
    assert result.predictions == pytest.approx(expected)
    labels = [e.label for e in task.train]
    assert result.metrics == task.score(result.predictions, labels)
    assert not result.logits.requires_grad


@pytest.mark.parametrize(("outputs", "needed"), [(0, 2), (2, 3), (3, 0)])
def test_a_model_for_another_task_is_refused(tmp_path, outputs, needed):
    loaded = load_model(str(save_model(tmp_path)), make_task(classes=outputs))
    task = make_task(classes=needed)
    for use in (evaluate, fit_probe):
        with pytest.raises(InputError, match=f"has {outputs or 1} outputs, .*needs {needed or 1}:"):
            use(loaded, task, task.train)


def test_no_examples_are_refused(tmp_path):
    loaded, task = load_model(str(save_model(tmp_path)), make_task()), make_task()
    with pytest.raises(InputError, match="no examples"):
        evaluate(loaded, task, [])
