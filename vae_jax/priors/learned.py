"""Small networks as densities of latent points: a second VAE, and a flow.

Both are trained on points whitened by the Gaussian that was fitted to them, so that one size and
one learning rate suit every latent space. They are trained by the same step as the models
(`train.step.make_update_step`) with early stopping: the weights with the lowest loss on held-out
points are kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.losses import gaussian_kl_per_dimension, weighted_mean
from vae_jax.metrics.densities import HIGHEST, Gaussian, fit_gaussian
from vae_jax.progress import progress
from vae_jax.schedules import learning_rate_schedule
from vae_jax.streams import stream_key
from vae_jax.train.state import Hyper, make_optimizer, start_state
from vae_jax.train.step import Examples, make_update_step
from vae_jax.types import Batch, UserError

WIDTH, BLOCKS = 256, 2  # of hidden layers
BATCH, STEPS = 256, 2000  # points per step, steps
EVERY = 100  # steps between two held-out losses
LEARNING_RATE = 1e-3
JUDGED = 4096  # held-out points, each with its own noise
FREQUENCIES = 8  # of the features of time
ODE_STEPS = 16  # of the Runge-Kutta method of fourth order

# (params, points [N, Z], key) -> loss of each point [N], in nats or squared units of whitened z.
Loss = Callable[[Any, jax.Array, jax.Array], jax.Array]


class Learned(NamedTuple):
    """A network that makes points, and the Gaussian that whitens them.

    Attributes:
        white: The Gaussian: z = mean + cholesky x for whitened points x.
        params: Parameters of `SecondVAE` or `Velocity`.
    """

    white: Gaussian
    params: Any


class Body(nn.Module):
    """Residual layers on the last axis: `[..., F]` to `[..., WIDTH]`."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Dense(WIDTH)(x)
        for _ in range(BLOCKS):
            x = x + nn.Dense(WIDTH)(nn.silu(nn.LayerNorm()(x)))
        return nn.silu(x)


class SecondVAE(nn.Module):
    """A VAE of the codes of another VAE (Dai & Wipf, "Diagnosing and enhancing VAE models", 2019).

    It has as many latent dimensions as its points have; its decoder is Gaussian, with one variance
    that is learned.
    """

    z_dim: int

    def setup(self) -> None:
        """Makes both networks."""
        self.encoder, self.decoder = Body(), Body()
        self.posterior, self.mean = nn.Dense(2 * self.z_dim), nn.Dense(self.z_dim)
        self.log_var = self.param("log_var", nn.initializers.constant(-1.0), ())

    def __call__(self, x: jax.Array, noise: jax.Array) -> tuple[jax.Array, ...]:
        """Returns mean and log_var of the posterior of x `[..., Z]`, and of x given a draw."""
        mean, log_var = jnp.split(self.posterior(self.encoder(x)), 2, axis=-1)
        log_var = 10 * jnp.tanh(log_var / 10)  # Exp never overflows.
        return mean, log_var, *self.decode(mean + jnp.exp(log_var / 2) * noise)

    def decode(self, u: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns mean `[..., Z]` and log variance of x for second codes u `[..., Z]`."""
        return self.mean(self.decoder(u)), self.log_var


def _applied(module: nn.Module, params: Any, *arguments: Any, method: str = "__call__") -> Any:
    return module.apply({"params": params}, *arguments, method=method)


def elbo_loss(params: Any, x: jax.Array, key: jax.Array) -> jax.Array:
    """Returns the negative ELBO of the second VAE for points `[N, Z]`: `[N]`, nats."""
    noise = jax.random.normal(key, x.shape, jnp.float32)
    mean, log_var, centre, spread = _applied(SecondVAE(x.shape[-1]), params, x, noise)
    nll = jnp.sum(jnp.square(x - centre), axis=-1) / (2 * jnp.exp(spread))
    kl = jnp.sum(gaussian_kl_per_dimension(mean, log_var), axis=-1)
    return nll + x.shape[-1] / 2 * (spread + math.log(2 * math.pi)) + kl


def second_vae_draw(density: Learned, key: jax.Array) -> jax.Array:
    """Draws one point `[Z]`: a second code of N(0, I), then a point given that code."""
    code_key, noise_key = jax.random.split(key)
    shape = density.white.mean.shape
    u, noise = (jax.random.normal(k, shape, jnp.float32) for k in (code_key, noise_key))
    mean, spread = _applied(SecondVAE(shape[0]), density.params, u, method="decode")
    return _coloured(density.white, mean + jnp.exp(spread / 2) * noise)


class Velocity(nn.Module):
    """The velocity of a flow from N(0, I) at time 0 to whitened points at time 1.

    It is the sum of a learned velocity, which is 0 at first, and the velocity that takes N(0, I) to
    itself: an untrained flow therefore draws from the fitted Gaussian.
    """

    @nn.compact
    def __call__(self, x: jax.Array, time: jax.Array) -> jax.Array:
        """Returns the velocity of x `[..., Z]` at `time` `[...]`."""
        waves = math.pi * np.arange(1, FREQUENCIES + 1, dtype=np.float32)
        angles = jnp.expand_dims(time, -1) * waves.reshape((1,) * time.ndim + (-1,))
        features = jnp.concatenate([x, jnp.cos(angles), jnp.sin(angles)], axis=-1)
        learned = nn.Dense(x.shape[-1], kernel_init=nn.initializers.zeros)(Body()(features))
        known = (2 * time - 1) / (time**2 + (1 - time) ** 2)
        return jnp.expand_dims(known, -1) * x + learned


def flow_loss(params: Any, x: jax.Array, key: jax.Array) -> jax.Array:
    """Returns the flow-matching loss of points `[N, Z]`: `[N]`, squared distances.

    Lipman et al., "Flow matching for generative modeling", ICLR 2023, with straight paths: the
    target of the velocity at (1 - t) x0 + t x is x - x0.
    """
    time_key, noise_key = jax.random.split(key)
    # Times of a batch are spread evenly, which takes most of the noise out of the loss.
    first = jax.random.uniform(time_key, (), jnp.float32)
    time = (first + jnp.arange(len(x)) / len(x)) % 1.0
    start = jax.random.normal(noise_key, x.shape, jnp.float32)
    between = (1 - time)[:, None] * start + time[:, None] * x
    velocity = _applied(Velocity(), params, between, time)
    return jnp.sum(jnp.square(velocity - (x - start)), axis=-1)


def flow_draw(density: Learned, key: jax.Array) -> jax.Array:
    """Draws one point `[Z]` by following the flow from a point of N(0, I) in `ODE_STEPS` steps."""
    start = jax.random.normal(key, density.white.mean.shape, jnp.float32)
    velocity = partial(_applied, Velocity(), density.params)
    step = 1 / ODE_STEPS

    def move(i: int, x: jax.Array) -> jax.Array:
        time = i * step
        first = velocity(x, time)
        second = velocity(x + step / 2 * first, time + step / 2)
        third = velocity(x + step / 2 * second, time + step / 2)
        fourth = velocity(x + step * third, time + step)
        return x + step / 6 * (first + 2 * second + 2 * third + fourth)

    return _coloured(density.white, jax.lax.fori_loop(0, ODE_STEPS, move, start))


def _coloured(white: Gaussian, x: jax.Array) -> jax.Array:
    return white.mean + jnp.dot(white.cholesky, x, precision=HIGHEST)


# Training.


def start_second_vae(z_dim: int, key: jax.Array) -> Any:
    """Returns parameters of a second VAE."""
    x = jnp.zeros((1, z_dim))
    return SecondVAE(z_dim).init(key, x, x)["params"]


def start_flow(z_dim: int, key: jax.Array) -> Any:
    """Returns parameters of a flow that leaves points where they are."""
    return Velocity().init(key, jnp.zeros((1, z_dim)), jnp.zeros(1))["params"]


def fit_learned(
    start: Callable[[int, jax.Array], Any],
    loss: Loss,
    label: str,
    points: np.ndarray,
    judging: np.ndarray,
    key: jax.Array,
) -> tuple[Learned, dict[str, Any]]:
    """Trains a network on points, and keeps the weights that are best on held-out points.

    Args:
        start: Function `(z_dim, key) -> params` that initialises the network.
        loss: Loss of the network.
        label: Label of the progress bar.
        points: `[N, Z]`.
        judging: `[M, Z]` held-out points.
        key: Typed random key of initialisation, batches and noise.

    Returns:
        The density, and `steps`, `held_out_loss` and `held_out_loss_at_first`.

    Raises:
        UserError: The held-out loss was never finite.
    """
    white = fit_gaussian(points.astype(np.float32))
    x, others = (_whitened(white, each) for each in (points, judging))
    others = jnp.asarray(np.resize(others, (JUDGED, x.shape[1])))  # repeats, or cuts off
    init_key, run_key, judge_key = (
        stream_key(key, name) for name in ("init", "step", "evaluation")
    )
    program, judge = _programs(loss)
    state = start_state(start(x.shape[1], init_key), {}, _optimizer())
    x, best, found = jnp.asarray(x), None, []
    with progress(STEPS, label, "steps") as advance:
        for step in range(0, STEPS + 1, EVERY):
            found.append(float(judge(state.params, others, judge_key)))
            if np.isfinite(found[-1]) and found[-1] == np.nanmin(found):
                best = state.params, step
            if step < STEPS:
                state = program(state, x, run_key)
                advance(EVERY, f"held-out loss {found[-1]:.4g}")
    if best is None:
        raise UserError(
            "training on the codes diverged: fit a prior of kind gaussian or mixture instead"
        )
    facts = {"steps": best[1], "held_out_loss": min(found), "held_out_loss_at_first": found[0]}
    return Learned(white, jax.device_get(best[0])), facts


def _whitened(white: Gaussian, points: np.ndarray) -> np.ndarray:
    mean, cholesky = (np.asarray(part, np.float64) for part in white)
    return np.linalg.solve(cholesky, (points - mean[None]).T).T.astype(np.float32)


def _optimizer() -> Any:
    return make_optimizer(0.9, 0.999, 1e-8, 1.0)


@lru_cache(maxsize=8)
def _programs(loss: Loss) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Returns the compiled functions that train for `EVERY` steps and compute the mean loss."""

    def loss_fn(params: Any, stats: Any, examples: Examples, key: jax.Array, *rest: Any):
        mean = weighted_mean(loss(params, examples.inputs, key), examples.weights)
        return mean, ({"loss": mean}, stats)

    def as_they_are(batch: Batch, key: jax.Array, hyper: Hyper) -> Examples:
        return Examples(batch.images, batch.images, batch.weights, None)

    factor = learning_rate_schedule("cosine", 0, STEPS)
    step = make_update_step(as_they_are, loss_fn, _optimizer(), factor)

    def train(state: Any, points: jax.Array, run_key: jax.Array) -> Any:
        def one(state: Any, _: None) -> tuple[Any, None]:
            batch_key = jax.random.fold_in(stream_key(run_key, "order"), state.step)
            rows = jax.random.randint(batch_key, (BATCH,), 0, len(points), jnp.int32)
            batch = Batch(points[rows], jnp.ones(BATCH))
            return step(state, batch, run_key, Hyper(0.0, LEARNING_RATE))[0], None

        return jax.lax.scan(one, state, None, EVERY)[0]

    return jax.jit(train), jax.jit(lambda params, x, key: jnp.mean(loss(params, x, key)))
