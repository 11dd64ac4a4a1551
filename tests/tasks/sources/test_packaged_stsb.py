from ntk_propulsion.tasks import Example, load_task


def test_packaged_stsb_is_a_regression_on_pairs_with_all_rows():
    task = load_task("stsb")
    assert (len(task.train), len(task.test)) == (5749, 1500)
    assert (task.kind, task.labels, task.num_labels) == ("regression", (), 1)
    first = Example(0, "A plane is taking off.", "An air plane is taking off.", 5.0)
    assert task.train[0] == first
    assert all(0 <= e.label <= 5 and e.pair for e in (*task.train, *task.test))


def test_glue_and_packaged_stsb_agree(glue):
    ours, theirs = load_task("stsb"), load_task("stsb", glue)
    for split in ("train", "test"):
        pairs = zip(getattr(ours, split), getattr(theirs, split), strict=True)
        assert sum(a.label != b.label for a, b in pairs) == 0
