import numpy as np
import pytest
import torch
from torch import nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.models.heads import final_linear
from ntk_propulsion.models.loaded import LoadedModel
from ntk_propulsion.models.loading import load_model
from ntk_propulsion.models.probe import fit_probe, probe_features
from ntk_propulsion.models.scoring import evaluate
from ntk_propulsion.models.tokens import encode
from ntk_propulsion.tasks import Example, Task, draw, load_task
from tests.tiny_folders import make_task, save_model

FINAL = {
    "bert": "classifier",
    "distilbert": "classifier",
    "electra": "classifier.out_proj",
    "roberta": "classifier.out_proj",
    "gpt2": "score",
    "llama": "score",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {kind: str(save_model(root / kind, kind)) for kind in FINAL}


def load(folders, kind, task, **options) -> LoadedModel:
    return load_model(folders[kind], task, dtype=torch.float64, **options)


def learnable(classes: int, n: int = 60) -> Task:
    """A task that frozen random features solve: the label tells how many of 8 words are good."""
    generator = np.random.default_rng(0)
    examples = []
    for i in range(n):
        good = i % classes * 8 // (classes - 1) if classes else i % 9
        words = generator.permutation(["good"] * good + ["bad"] * (8 - good))
        examples.append(Example(i, " ".join(words), None, i % classes if classes else i % 9))
    kind, metric = ("classification", "accuracy") if classes else ("regression", "pearson")
    names = tuple(f"class{c}" for c in range(classes))
    return Task("count", kind, names, tuple(examples), tuple(examples), metric, "")


@pytest.mark.parametrize("kind", FINAL)
def test_features_of_the_final_layer_give_the_logits(folders, kind):
    task = make_task(classes=3)
    loaded = load(folders, kind, task)
    name, layer = final_linear(loaded.model, encode(loaded, task.train[:2]).batch)
    assert name == FINAL[kind]
    features = torch.from_numpy(probe_features(loaded, task.train, layer, batch_size=7))
    logits = evaluate(loaded, task, task.train).logits
    torch.testing.assert_close(nn.functional.linear(features, layer.weight, layer.bias), logits)


@pytest.mark.parametrize("kind", ["bert", "roberta", "gpt2", "llama"])
@pytest.mark.parametrize("classes", [2, 3, 0])
def test_probe_beats_the_random_head_and_reports_the_score_it_has(folders, kind, classes):
    task = learnable(classes)
    loaded = load(folders, kind, task)
    report = fit_probe(loaded, task, task.train)
    metrics = evaluate(loaded, task, task.train).metrics
    assert metrics[task.metric] == pytest.approx(report.train_score, abs=1e-9)
    assert report.train_score > 0.9
    assert report.cv_score > 0.8
    assert (report.module, report.features, report.examples) == (FINAL[kind], 16, 60)


def test_probe_gives_sklearns_probabilities_and_centred_logits(folders):
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    task = learnable(2)
    loaded = load(folders, "bert", task)
    _, layer = final_linear(loaded.model, encode(loaded, task.train[:2]).batch)
    features = StandardScaler().fit_transform(probe_features(loaded, task.train, layer))
    report = fit_probe(loaded, task, task.train)
    fitted = LogisticRegression(C=report.regularisation, max_iter=1000)
    fitted.fit(features, [e.label for e in task.train])
    logits = evaluate(loaded, task, task.train).logits
    torch.testing.assert_close(
        logits.softmax(-1).numpy(), fitted.predict_proba(features), rtol=0, atol=1e-6
    )
    torch.testing.assert_close(logits.sum(-1), torch.zeros(60, dtype=torch.float64))


def test_probe_is_the_same_for_the_same_seed(folders):
    task = make_task()
    weights = []
    for _ in range(2):
        loaded = load(folders, "bert", task)
        fit_probe(loaded, task, task.train, seed=3)
        weights.append(loaded.model.classifier.weight.detach())
    assert torch.equal(*weights)


def test_probe_leaves_everything_else_as_it_was(folders):
    task = make_task()
    loaded = load(folders, "bert", task)
    loaded.model.bert.embeddings.requires_grad_(False)
    loaded.model.train().bert.encoder.eval()
    modes = [module.training for module in loaded.model.modules()]
    before = {name: (p.clone(), p.requires_grad) for name, p in loaded.model.named_parameters()}
    fit_probe(loaded, task, task.train)
    assert [module.training for module in loaded.model.modules()] == modes
    assert not any(module._forward_hooks for module in loaded.model.modules())
    for name, parameter in loaded.model.named_parameters():
        old, wanted = before[name]
        assert parameter.requires_grad == wanted
        assert parameter.grad is None
        assert torch.equal(parameter, old) != name.startswith("classifier")


def test_too_few_examples_of_a_class_are_refused_by_name(folders):
    task = make_task(classes=3)
    loaded = load(folders, "bert", task)
    some = [e for e in task.train if e.label != 1] + [task.train[1]]
    with pytest.raises(InputError, match="2 examples of each class, not so of class1"):
        fit_probe(loaded, task, some)
    regression = make_task(classes=0)
    with pytest.raises(InputError, match="3 examples are too few"):
        fit_probe(load(folders, "bert", regression), regression, regression.train[:3])


def test_head_whose_logits_no_linear_layer_makes_is_refused(folders):
    task = make_task()
    loaded = load(folders, "bert", task)
    loaded.model.classifier.register_forward_hook(lambda module, inputs, output: 2 * output)
    with pytest.raises(InputError, match=r"no linear layer .* makes the logits alone"):
        fit_probe(loaded, task, task.train)


def test_smallest_number_of_examples_gives_a_probe(folders, recwarn):
    for task in (make_task(), make_task(classes=0)):
        report = fit_probe(load(folders, "bert", task), task, task.train[:4])
        assert report.examples == 4
    assert not recwarn.list


def test_minilm_probe_finds_sentiment():
    task = load_task("rotten-tomatoes")
    loaded = load_model("minilm", task)
    report = fit_probe(loaded, task, draw(task, 192, split="train"))
    assert report.cv_score > 0.52
    assert evaluate(loaded, task, draw(task, 64)).metrics["accuracy"] > 0.5
    assert encode(loaded, draw(task, 4)).truncated == 0
