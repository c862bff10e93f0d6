"""The retention rule against a naive one, listing and removal of step folders."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vae_jax.checkpoint.step_folders import Damaged, StepFolders, steps_to_keep

LOSSES = st.lists(st.sampled_from([math.nan, math.inf, -math.inf, 1.0, 2.0, 2.5, 3.0]), max_size=12)


def naive_retention(losses, keep_latest, keep_best):
    """The rule, walked through one save at a time: returns what is kept after the last."""
    kept = []  # (step, loss)
    for step, loss in enumerate(losses):
        kept.append((step, loss))
        survivors = kept[-keep_latest:]
        candidates = [pair for pair in kept if not math.isnan(pair[1]) and abs(pair[1]) < math.inf]
        for _ in range(min(keep_best, len(candidates))):
            best = candidates[0]
            for pair in candidates:
                if pair[1] < best[1]:
                    best = pair
            candidates.remove(best)
            survivors = [*survivors, best]
        kept = [pair for pair in kept if pair in survivors]
    return {step for step, _ in kept}


def check_retention(losses, keep_latest, keep_best):
    kept = {}
    for step, loss in enumerate(losses):
        kept[step] = loss
        chosen = steps_to_keep(kept, keep_latest=keep_latest, keep_best=keep_best)
        kept = {step: loss for step, loss in kept.items() if step in chosen}
    assert set(kept) == naive_retention(losses, keep_latest, keep_best)
    finite = [loss for loss in losses if math.isfinite(loss)]
    if finite and keep_best:  # pruning along the way never loses the best of the whole run
        assert min(finite) in kept.values()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(LOSSES, st.integers(1, 3), st.integers(0, 3))
def test_retention_equals_the_naive_rule(losses, keep_latest, keep_best):
    check_retention(losses, keep_latest, keep_best)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, derandomize=True)
@given(LOSSES, st.integers(1, 3), st.integers(0, 3))
def test_retention_equals_the_naive_rule_on_1000_sequences(losses, keep_latest, keep_best):
    check_retention(losses, keep_latest, keep_best)


def test_only_canonical_numbers_are_steps(tmp_path):
    for name in ("3", "12", "007", "-1", "x", "5.unfinished", ".deleted", "\u0663"):
        (tmp_path / name).mkdir()
    (tmp_path / "4").write_text("a file")
    assert StepFolders(tmp_path, ".unfinished").numbers() == [3, 12]
    assert StepFolders(tmp_path / "missing", ".unfinished").numbers() == []


def test_removal_leaves_nothing_behind(tmp_path):
    folders = StepFolders(tmp_path, ".unfinished")
    (tmp_path / "3" / "decoder").mkdir(parents=True)
    (tmp_path / ".deleted" / "3").mkdir(parents=True)  # an earlier removal was killed
    (tmp_path / "4.unfinished" / "decoder").mkdir(parents=True)
    folders.remove_rests()
    assert [path.name for path in tmp_path.iterdir()] == ["3"]
    folders.discard(3)
    folders.discard(3)  # gone already
    assert list(tmp_path.iterdir()) == []


def test_missing_and_altered_records_are_damage(tmp_path):
    folders = StepFolders(tmp_path, ".unfinished")
    with pytest.raises(Damaged, match="record file is missing"):
        folders.record(3)
    (tmp_path / "3" / "record").mkdir(parents=True)
    for text in ("", "[]", "{}", '{"record": {}, "sha256": "0"}', "[" * 100_000, "\udcff"):
        content = text.encode("utf-8", "surrogateescape")
        (tmp_path / "3" / "record" / "metadata").write_bytes(content)
        with pytest.raises(Damaged, match="record file cannot be used"):
            folders.record(3)
