"""No two draws of a run share a key."""

import jax

from vae_jax.streams import STREAMS, step_key, stream_key


def test_no_stream_of_the_run_or_of_a_step_shares_a_key():
    run_key = jax.random.key(0)
    keys = [stream_key(run_key, name) for name in STREAMS]
    for step in range(len(STREAMS) + 2):
        keys.append(step_key(run_key, step))
        keys += [stream_key(step_key(run_key, step), name) for name in STREAMS]
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == len(keys)
