"""What a resumed run may change, and what it keeps of its config."""

import pytest

from configs import default
from vae_jax.config import validate
from vae_jax.train.resuming import check_resumable, resolved
from vae_jax.types import UserError


def test_resuming_refuses_another_trajectory_and_shows_both_values():
    saved, now = default.get_config(), default.get_config()
    now.train.epochs, now.eval.batch_size = 99, 3
    check_resumable(saved, now)
    now.loss.kl_weight = 7.0
    with pytest.raises(UserError, match="config.loss.kl_weight is 7.0.*trained with 3.0"):
        check_resumable(saved, now)


def test_a_run_that_is_trained_on_keeps_its_schedule_unless_told_otherwise():
    first = default.get_config()
    first.optimizer.schedule, first.train.epochs = "cosine", 12
    saved = resolved(first)
    assert saved.optimizer.schedule_epochs == 12 and first.optimizer.schedule_epochs == 0
    assert resolved(first, first).optimizer.schedule_epochs == 12  # not begun yet
    first.train.epochs = 8
    assert resolved(first, saved).optimizer.schedule_epochs == 12
    first.train.epochs = 18
    with pytest.raises(UserError, match=r"falls to 0 in 12 epochs.*schedule_epochs=18 raises"):
        resolved(first, saved)
    first.optimizer.schedule_epochs = 18
    check_resumable(saved, first)
    assert resolved(first, saved).optimizer.schedule_epochs == 18
    first.optimizer.schedule = "constant"
    with pytest.raises(UserError, match="'constant', which has no length"):
        validate(first)
