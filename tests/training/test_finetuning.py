import random

import numpy as np
import pytest
import torch
from torch import nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.models.loaded import LoadedModel
from ntk_propulsion.models.loading import load_model
from ntk_propulsion.models.scoring import evaluate
from ntk_propulsion.models.tokens import encode, length_batches, tokenize
from ntk_propulsion.training.finetuning import TrainingDiverged, finetune
from tests.tiny_folders import make_task, save_model

TASK = make_task(n=12)
SETTINGS = {"steps": 7, "learning_rate": 1e-3, "batch_size": 4, "seed": 3}


class KilledError(Exception):
    pass


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {kind: str(save_model(root / kind, kind)) for kind in ("bert", "gpt2")}


@pytest.fixture
def loaded(folders) -> LoadedModel:
    return load_model(folders["bert"], TASK)


def state(loaded):
    return {name: p.detach().clone() for name, p in loaded.model.named_parameters()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def kill_at(step):
    def on_step(number, loss):
        if number == step:
            raise KilledError

    return on_step


def test_two_runs_agree_to_the_bit_and_seeds_differ(folders):
    runs = []
    for seed in (3, 3, 4):
        loaded = load_model(folders["bert"], TASK)
        log = finetune(loaded, TASK, TASK.train, **SETTINGS | {"seed": seed})
        runs.append((log.losses, state(loaded)))
    (losses, end), (again, end_again), (others, _) = runs
    assert losses == again
    assert same(end, end_again)
    assert losses != others


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
@pytest.mark.parametrize("classes", [2, 3, 0])
def test_training_learns_what_it_sees(folders, kind, classes):
    task = make_task(classes=classes, n=12)
    loaded = load_model(folders[kind], task)
    options = SETTINGS | {"steps": 60, "learning_rate": 1e-2, "dropout": False, "seed": 0}
    log = finetune(loaded, task, task.train, **options)
    assert np.mean(log.losses[-3:]) < 0.7 * np.mean(log.losses[:3])
    assert evaluate(loaded, task, task.train).metrics[task.metric] > 0.6


def test_log_says_what_was_done_and_each_step_is_told(loaded):
    told = []
    log = finetune(loaded, TASK, TASK.train, **SETTINGS, on_step=lambda *step: told.append(step))
    assert told == list(enumerate(log.losses, start=1))
    assert (log.steps, log.learning_rate) == (7, 1e-3)
    assert log.trainable_parameters == loaded.model.num_parameters()
    assert 0 < log.seconds < 60


def test_first_loss_is_the_cross_entropy_of_the_first_batch(loaded):
    logits = evaluate(loaded, TASK, TASK.train).logits
    labels = torch.tensor([e.label for e in TASK.train])
    expected = nn.functional.cross_entropy(logits, labels).item()
    log = finetune(
        loaded, TASK, TASK.train, steps=1, learning_rate=1e-3, batch_size=12, dropout=False
    )
    assert log.losses == pytest.approx([expected], rel=1e-5)


def test_steps_are_those_of_adamw_with_a_linear_schedule_and_clipping(folders):
    """Against a loop written by hand with torch's own parts."""
    ours, theirs = (load_model(folders["bert"], TASK) for _ in range(2))
    steps, rate, decay = 5, 1e-2, 0.1
    options = {"batch_size": 4, "seed": 3, "dropout": False, "max_grad_norm": 0.1}
    log = finetune(
        ours, TASK, TASK.train, steps=steps, learning_rate=rate, weight_decay=decay, **options
    )
    model = theirs.model
    kept = [p for n, p in model.named_parameters() if "LayerNorm" in n or n.endswith("bias")]
    weights = [p for p in model.parameters() if all(p is not q for q in kept)]
    groups = [{"params": weights, "weight_decay": decay}, {"params": kept, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=rate)
    lengths = [len(row["input_ids"]) for row in tokenize(theirs, TASK.train).rows]
    losses = []
    for done, chosen in enumerate(length_batches(lengths, 4, steps, seed=3)):
        examples = [TASK.train[i] for i in chosen]
        logits = model(**encode(theirs, examples).batch).logits
        loss = nn.functional.cross_entropy(logits, torch.tensor([e.label for e in examples]))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        for group in optimiser.param_groups:
            group["lr"] = rate * (steps - done) / steps
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert log.losses == pytest.approx(losses, rel=1e-5)
    for name, p in model.named_parameters():
        torch.testing.assert_close(ours.model.get_parameter(name), p, rtol=1e-4, atol=1e-5)


def test_a_schedule_that_warms_up_starts_at_no_rate_at_all(loaded):
    before = state(loaded)
    finetune(loaded, TASK, TASK.train, **SETTINGS | {"steps": 1}, warmup=1)
    assert same(before, state(loaded))


def test_only_what_requires_a_gradient_moves(loaded):
    loaded.model.bert.requires_grad_(False)
    before = state(loaded)
    log = finetune(loaded, TASK, TASK.train, **SETTINGS)
    assert log.trainable_parameters == 16 * 2 + 2
    after = state(loaded)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"classifier.weight", "classifier.bias"}


def test_dropout_is_off_when_asked(loaded, folders):
    steps = {"steps": 1, "learning_rate": 1e-3, "batch_size": 12}
    losses = {
        (dropout, seed): finetune(
            load_model(folders["bert"], TASK), TASK, TASK.train, **steps, dropout=dropout, seed=seed
        ).losses[0]
        for dropout in (True, False)
        for seed in (0, 1)
    }
    assert losses[False, 0] == pytest.approx(losses[False, 1], rel=1e-5)
    assert losses[True, 0] != pytest.approx(losses[True, 1], rel=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_model_and_random_states_come_back_and_the_console_stays_empty(loaded, training, capfd):
    loaded.model.train(training)
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    expected = torch.rand(1).item(), random.random(), np.random.rand()
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    finetune(loaded, TASK, TASK.train, **SETTINGS)
    assert (torch.rand(1).item(), random.random(), np.random.rand()) == expected
    assert all(module.training == training for module in loaded.model.modules())
    assert all(p.grad is None for p in loaded.model.parameters())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("step", [1, 3, 4, 5, 6, 7])
def test_killed_run_resumes_to_the_numbers_of_an_unbroken_one(folders, tmp_path, step):
    whole = load_model(folders["bert"], TASK)
    log = finetune(whole, TASK, TASK.train, **SETTINGS)
    options = SETTINGS | {"output_dir": tmp_path / "run", "save_steps": 2}
    broken = load_model(folders["bert"], TASK)
    with pytest.raises(KilledError):
        finetune(broken, TASK, TASK.train, **options, on_step=kill_at(step))
    told = []
    resumed = load_model(folders["bert"], TASK)
    again = finetune(resumed, TASK, TASK.train, **options, on_step=lambda n, _: told.append(n))
    assert told[0] == (step - 1) // 2 * 2 + 1
    assert again.losses == log.losses
    assert same(state(whole), state(resumed))


def test_finished_run_is_not_repeated(folders, tmp_path):
    first = load_model(folders["bert"], TASK)
    log = finetune(first, TASK, TASK.train, **SETTINGS, output_dir=tmp_path)
    second = load_model(folders["bert"], TASK)
    told = []
    options = {"output_dir": tmp_path, "on_step": lambda *step: told.append(step)}
    again = finetune(second, TASK, TASK.train, **SETTINGS, **options)
    assert not told
    assert again == log
    assert same(state(first), state(second))


def test_checkpoints_hold_only_what_is_trained_and_the_last_one_is_kept(loaded, tmp_path):
    loaded.model.bert.requires_grad_(False)
    finetune(loaded, TASK, TASK.train, **SETTINGS, output_dir=tmp_path, save_steps=2)
    (checkpoint,) = tmp_path.glob("checkpoint-*")
    assert checkpoint.name == "checkpoint-7"
    assert (checkpoint / "trained.safetensors").stat().st_size < 1000


def test_folder_of_another_training_is_refused(loaded, tmp_path):
    finetune(loaded, TASK, TASK.train, **SETTINGS, output_dir=tmp_path)
    options = SETTINGS | {"learning_rate": 1e-2, "seed": 0}
    with pytest.raises(InputError, match="another setting of learning_rate, seed"):
        finetune(loaded, TASK, TASK.train, **options, output_dir=tmp_path)


def test_a_gradient_that_is_not_finite_stops_before_it_is_followed(loaded):
    before = state(loaded)
    weight = loaded.model.classifier.weight
    weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(TrainingDiverged, match="the gradient is NaN or infinite at step 1 "):
        finetune(loaded, TASK, TASK.train, **SETTINGS)
    assert same(before, state(loaded))


def test_divergence_stops_and_the_last_finite_parameters_stay(loaded):
    bad = {}

    def poison(step, loss):
        if step == 3:
            bad.update(state(loaded))
            with torch.no_grad():
                loaded.model.classifier.bias.fill_(float("nan"))

    with pytest.raises(TrainingDiverged, match=r"loss is NaN .* step 4 with learning rate 0\.001"):
        finetune(loaded, TASK, TASK.train, **SETTINGS, on_step=poison)
    assert all(p.isfinite().all() for p in loaded.model.parameters())
    assert not loaded.model.training
    assert not same(bad, state(loaded))  # one step back: the state of the last finite loss


def test_parameters_broken_by_the_last_step_are_noticed(loaded):
    def poison(step, loss):
        if step == 7:
            with torch.no_grad():
                loaded.model.classifier.bias.fill_(float("inf"))

    with pytest.raises(TrainingDiverged, match="a parameter is NaN or infinite at step 7"):
        finetune(loaded, TASK, TASK.train, **SETTINGS, on_step=poison)
    assert all(p.isfinite().all() for p in loaded.model.parameters())


class Scaled(nn.Module):
    """A frozen layer with a trained scale on its output, as a wrapper of the package makes it."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.scale = nn.Parameter(torch.ones(inner.weight.shape[-1]))

    def forward(self, x):
        return self.inner(x) * self.scale


def test_wrapped_model_with_tied_weights_trains_and_resumes(folders, tmp_path):
    def wrapped():
        loaded = load_model(folders["bert"], TASK)
        loaded.model.requires_grad_(False)
        embeddings = loaded.model.bert.embeddings
        embeddings.word_embeddings = Scaled(embeddings.word_embeddings)
        loaded.model.classifier.extra = nn.Linear(16, 18, bias=False)
        loaded.model.classifier.extra.weight = embeddings.word_embeddings.inner.weight
        loaded.model.set_input_embeddings(embeddings.word_embeddings)
        embeddings.word_embeddings.inner.weight.requires_grad_(True)
        return loaded

    whole = wrapped()
    log = finetune(whole, TASK, TASK.train, **SETTINGS)
    assert log.trainable_parameters == 16 + whole.model.classifier.extra.weight.numel()
    options = SETTINGS | {"output_dir": tmp_path, "save_steps": 2}
    with pytest.raises(KilledError):
        finetune(wrapped(), TASK, TASK.train, **options, on_step=kill_at(5))
    resumed = wrapped()
    assert finetune(resumed, TASK, TASK.train, **options).losses == log.losses
    assert same(state(whole), state(resumed))
    tied = resumed.model.classifier.extra.weight
    assert tied is resumed.model.bert.embeddings.word_embeddings.inner.weight


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "at least 1"),
        ({"learning_rate": 0.0}, "positive and finite"),
        ({"learning_rate": float("nan")}, "positive and finite"),
        ({"learning_rate": 1e39}, "positive and finite"),
        ({"batch_size": 0}, "at least 1"),
        ({"schedule": "zigzag"}, "cannot train with these settings"),
        ({"schedule": "warmup_stable_decay"}, "cannot train with these settings"),
        ({"schedule": "reduce_lr_on_plateau"}, "needs more than the number of the step"),
    ],
)
def test_settings_that_make_no_sense_are_refused(loaded, change, message):
    with pytest.raises(InputError, match=message):
        finetune(loaded, TASK, TASK.train, **SETTINGS | change)


def test_nothing_to_train_is_refused(loaded):
    loaded.model.requires_grad_(False)
    with pytest.raises(InputError, match="nothing to train"):
        finetune(loaded, TASK, TASK.train, **SETTINGS)
    with pytest.raises(InputError, match="no examples"):
        finetune(load_model(loaded.name, TASK), TASK, [], **SETTINGS)
