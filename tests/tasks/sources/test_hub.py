import sys
from types import SimpleNamespace

import pytest

from ntk_propulsion.errors import InputError
from ntk_propulsion.tasks import load_task


class Split(list):
    def __init__(self, rows, names=None):
        super().__init__(rows)
        self.features = {"label": SimpleNamespace(names=names) if names else object()}


def stub_hub(monkeypatch, known):
    def load_dataset(path, config=None, **options):
        if (path, config) not in known:
            raise FileNotFoundError(f"no data set {path}\nlong story")
        return known[path, config]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    monkeypatch.setattr("ntk_propulsion.tasks.sources.hub.find_spec", lambda name: object())


def test_hub_data_set_uses_its_class_names_and_validation_split(monkeypatch):
    rows = [{"text": f"t{i}", "label": i % 2} for i in range(6)]
    unlabelled = Split([{"text": "t", "label": -1}], ["neg", "pos"])
    splits = {"train": Split(rows, ["neg", "pos"]), "validation": Split(rows[:2], ["neg", "pos"])}
    stub_hub(monkeypatch, {("owner/set", None): {**splits, "test": unlabelled}})
    task = load_task("hub:owner/set")
    assert (task.labels, len(task.train), len(task.test)) == (("neg", "pos"), 6, 2)
    with pytest.raises(InputError, match=r"row 0 .*no label"):
        load_task("hub:owner/set", test_split="test")
    with pytest.raises(InputError, match="did you mean validation"):
        load_task("hub:owner/set", test_split="validatoin")


def test_hub_name_may_carry_a_configuration(monkeypatch):
    rows = Split([{"text": f"t{i}", "label": i / 30} for i in range(30)])
    known = {("glue", "stsb"): {"train": rows}, ("owner/glue", "stsb"): {"train": rows}}
    stub_hub(monkeypatch, known)
    for name in ("hub:glue/stsb", "hub:owner/glue/stsb"):
        task = load_task(name)
        assert (task.kind, len(task.train), len(task.test)) == ("regression", 24, 6)


def test_hub_failures_are_one_line(monkeypatch):
    stub_hub(monkeypatch, {})
    with pytest.raises(InputError, match="cannot load data set 'nobody/nothing': no data set") as e:
        load_task("hub:nobody/nothing")
    assert "\n" not in str(e.value)
    monkeypatch.setattr("ntk_propulsion.tasks.sources.hub.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install datasets"):
        load_task("hub:anything")


def test_withheld_or_missing_labels_of_the_hub_are_refused(monkeypatch):
    rows = [{"text": f"t{i}", "label": i % 2} for i in range(6)]
    withheld = Split([{"text": "t", "label": -1}])
    targets = Split([{"text": f"t{i}", "label": i / 7} for i in range(30)])
    lists = Split([{"text": "t", "label": [0, 1]}])
    other = Split([{"text": "t"}])
    known = {
        "classes": {"train": Split(rows), "test": withheld},
        "targets": {"train": targets, "test": Split([{"text": "t", "label": -1.0}])},
        "lists": {"train": lists},
        "other": {"train": other},
    }
    stub_hub(monkeypatch, {(name, None): splits for name, splits in known.items()})
    for name, said in (
        ("classes", "hub:classes test, row 0 .*'-1' is none of 0, 1, which stands where"),
        ("targets", "hub:targets test, row 0 .*'-1', which stands where labels are withheld"),
        ("lists", "row 0 .*a list is no label"),
        ("other", "row 0 .*'label': known: text"),
    ):
        with pytest.raises(InputError, match=said):
            load_task(f"hub:{name}")
