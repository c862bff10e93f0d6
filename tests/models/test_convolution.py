"""Both forms of (transposed) convolution against loops in NumPy, in values and gradients."""

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from vae_jax.models import convolution
from vae_jax.models.convolution import (
    conv,
    conv_axis,
    conv_output_size,
    conv_transpose,
    conv_transpose_output_size,
)


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def low_padding(size, taps, stride, padding):
    """TensorFlow's 'same' puts the odd zero at the end."""
    if padding == "valid":
        return 0
    return max((-(-size // stride) - 1) * stride + taps - size, 0) // 2


def pairs(large_shape, small_shape, kernel_shape, strides, padding):
    """Every (small pixel, tap, large pixel) of a convolution, one by one."""
    low = [
        low_padding(size, taps, stride, padding)
        for size, taps, stride in zip(large_shape, kernel_shape, strides, strict=True)
    ]
    for small in np.ndindex(*small_shape):
        for tap in np.ndindex(*kernel_shape):
            large = tuple(
                p * stride + t - pad
                for p, stride, t, pad in zip(small, strides, tap, low, strict=True)
            )
            if all(0 <= q < size for q, size in zip(large, large_shape, strict=True)):
                yield small, tap, large


def naive(large, small, kernel, strides, padding):
    """The three derivatives of sum(small * conv(large, kernel)), in small, large and kernel."""
    to_small, to_large, to_kernel = (np.zeros_like(a) for a in (small, large, kernel))
    for (i, j), (a, b), (r, c) in pairs(
        large.shape[1:3], small.shape[1:3], kernel.shape[:2], strides, padding
    ):
        to_small[:, i, j] += large[:, r, c] @ kernel[a, b]
        to_large[:, r, c] += small[:, i, j] @ kernel[a, b].T
        to_kernel[a, b] += large[:, r, c].T @ small[:, i, j]
    return to_small, to_large, to_kernel


def pulled_back(function, x, kernel, cotangent, **options):
    y, pullback = jax.vjp(functools.partial(function, **options), x, kernel)
    return (y, *pullback(cotangent))


def value_and_gradients(function, *arrays, **options):
    return jax.jit(functools.partial(pulled_back, function, **options))(*arrays)


def in_both_forms(function, *arrays, **options):
    """Value and gradients, computed in one program."""

    @jax.jit
    def run(*arrays):
        forms = ("xla", "matmul")
        return [pulled_back(function, *arrays, implementation=form, **options) for form in forms]

    return run(*arrays)


def assert_close(actual, expected, atol=1e-11):
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)


GEOMETRIES = {
    "size": st.tuples(st.integers(1, 7), st.integers(1, 7)),
    "taps": st.tuples(st.integers(1, 4), st.integers(1, 4)),
    "strides": st.tuples(st.integers(1, 4), st.integers(1, 4)),
    "padding": st.sampled_from(["same", "valid"]),
    "channels": st.tuples(st.sampled_from([1, 3, 8]), st.integers(1, 3)),
}


@settings(max_examples=12, deadline=None, derandomize=True)
@given(**GEOMETRIES)
def test_conv_agrees_with_loops(size, taps, strides, padding, channels):
    if padding == "valid":
        size = tuple(max(pair) for pair in zip(size, taps, strict=True))
    out = [conv_output_size(*axis, padding) for axis in zip(size, taps, strides, strict=True)]
    x, kernel = normal(0, 2, *size, channels[0]), normal(1, *taps, *channels)
    cotangent = normal(2, 2, *out, channels[1])
    to_small, to_large, to_kernel = naive(x, cotangent, kernel, strides, padding)
    options = {"strides": strides, "padding": padding}
    for actual in in_both_forms(conv, x, kernel, cotangent, **options):
        for a, b in zip(actual, (to_small, to_large, to_kernel), strict=True):
            assert_close(a, b)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(**GEOMETRIES)
def test_conv_transpose_agrees_with_loops(size, taps, strides, padding, channels):
    out = [
        conv_transpose_output_size(*axis, padding) for axis in zip(size, taps, strides, strict=True)
    ]
    x, kernel = normal(0, 2, *size, channels[1]), normal(1, *taps, *channels)
    cotangent = normal(2, 2, *out, channels[0])
    to_small, to_large, to_kernel = naive(cotangent, x, kernel, strides, padding)
    options = {"strides": strides, "padding": padding}
    for actual in in_both_forms(conv_transpose, x, kernel, cotangent, **options):
        for a, b in zip(actual, (to_large, to_small, to_kernel), strict=True):
            assert_close(a, b)


def test_output_sizes_are_those_of_keras():
    assert [conv_output_size(n, 3, 2, "same") for n in (1, 5, 6, 96)] == [1, 3, 3, 48]
    assert [conv_output_size(n, 3, 2, "valid") for n in (3, 5, 6)] == [1, 2, 2]
    assert [conv_transpose_output_size(n, 3, 2, "same") for n in (1, 7)] == [2, 14]
    assert conv_transpose_output_size(5, 4, 2, "valid") == 12
    assert conv_transpose_output_size(5, 2, 3, "valid") == 15  # a stride above the kernel


def test_strided_same_padding_puts_the_zero_at_the_end():
    x = jnp.arange(1.0, 5.0).reshape(1, 1, 4, 1)
    kernel = jnp.array([1.0, 10.0, 100.0]).reshape(1, 3, 1, 1)
    for implementation in ("xla", "matmul"):
        y = conv(x, kernel, strides=(1, 2), implementation=implementation)
        np.testing.assert_array_equal(y.ravel(), [321.0, 43.0])
        z = conv_transpose(x, kernel, strides=(1, 2), implementation=implementation)
        np.testing.assert_array_equal(z.ravel(), [1, 10, 102, 20, 203, 30, 304, 40])


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("implementation", ["xla", "matmul"])
def test_conv_transpose_is_the_adjoint_of_conv(implementation, padding):
    options = {"strides": (2, 3), "padding": padding, "implementation": implementation}
    small, kernel = jnp.asarray(normal(0, 2, 5, 4, 6)), jnp.asarray(normal(1, 4, 3, 3, 6))
    image = conv_transpose(small, kernel, **options)
    large = jnp.asarray(normal(2, *image.shape))
    left, right = jnp.vdot(conv(large, kernel, **options), small), jnp.vdot(large, image)
    np.testing.assert_allclose(left, right, rtol=1e-12)


# 8 channels and more take another form of the kernel gradient.
@pytest.mark.parametrize(("implementation", "channels"), [("xla", 2), ("matmul", 2), ("matmul", 8)])
def test_second_derivatives(implementation, channels):
    options = {"strides": (2, 1), "implementation": implementation}
    x, kernel = jnp.asarray(normal(0, 1, 4, 3, channels)), jnp.asarray(normal(1, 3, 2, channels, 2))
    small = jnp.asarray(normal(2, 1, 2, 3, 2))
    for function, image in ((conv, x), (conv_transpose, small)):
        squared = jax.jit(lambda x, k, f=function: f(x, k, **options) ** 2)
        check_grads(squared, (image, kernel), 2, ["rev"])


@pytest.mark.parametrize("implementation", ["xla", "matmul"])
def test_bfloat16_stays_near_float64(implementation):
    x, kernel, small = normal(0, 4, 9, 8, 16), normal(1, 3, 3, 16, 8), normal(2, 4, 5, 4, 8)
    options = {"strides": (2, 2), "implementation": implementation}
    for function, image, cotangent in (
        (conv, x, small),
        (conv_transpose, small, normal(3, 4, 10, 8, 16)),
    ):
        low = [jnp.asarray(a, jnp.bfloat16) for a in (image, kernel, cotangent)]
        rounded = [np.asarray(a, np.float64) for a in low]
        actual = value_and_gradients(function, *low, **options)
        exact = value_and_gradients(function, *rounded, **options)
        for a, b in zip(actual, exact, strict=True):
            assert a.dtype == jnp.bfloat16
            # One rounding to 8 bits of the result, on top of products summed in float32.
            assert_close(np.asarray(a, np.float64), b, atol=2**-8 * float(jnp.abs(b).max()))


@pytest.mark.parametrize("function", [conv, conv_transpose])
def test_vmap_over_kernels_and_scan_equal_a_loop(function):
    x, kernels = jnp.asarray(normal(0, 2, 5, 4, 8)), jnp.asarray(normal(1, 3, 3, 3, 8, 8))

    def gradient(kernel):
        return jax.grad(
            lambda k: jnp.sum(function(x, k, strides=(2, 2), implementation="matmul") ** 2)
        )(kernel)

    looped = jnp.stack([jax.jit(gradient)(kernel) for kernel in kernels])
    assert_close(jax.jit(jax.vmap(gradient))(kernels), looped)
    assert_close(jax.lax.map(gradient, kernels), looped)


# 6 images come in chunks of 3; 7 in two of 4, the second of which begins at the fourth image.
@pytest.mark.parametrize(("batch", "chunk", "lanes"), [(6, 3, 1), (6, 3, 3), (7, 4, 1), (7, 4, 2)])
@pytest.mark.parametrize("channels", [1, 3, 8, 128])
def test_chunks_of_images_agree_with_loops(monkeypatch, channels, batch, chunk, lanes):
    x, kernel = normal(0, batch, 6, 5, channels), normal(1, 3, 3, channels, 4)
    small, image = normal(2, batch, 3, 3, 4), normal(3, batch, 6, 6, channels)
    patches = 3 * 3 * 9 * channels * 8  # bytes of an image
    monkeypatch.setattr(convolution, "_WHOLE_BYTES", patches)
    monkeypatch.setattr(convolution, "_CHUNK_BYTES", 4 * patches)
    monkeypatch.setattr(convolution, "_LANES", lanes)
    monkeypatch.setattr(convolution, "_LANE_BYTES", patches)
    geometry = tuple(conv_axis(size, 3, 2, "same") for size in (6, 5))
    dtype = jnp.dtype("float64")
    assert convolution._chunk(geometry, batch, channels, dtype) == (chunk, lanes)
    options = {"strides": (2, 2), "implementation": "matmul"}

    @jax.jit
    def both(x, small, kernel, image):
        return (
            pulled_back(conv, x, kernel, small, **options),
            pulled_back(conv_transpose, small, kernel, image, **options),
        )

    gathered, scattered, correlated = naive(image, small, kernel, (2, 2), "same")
    wanted = naive(x, small, kernel, (2, 2), "same"), (scattered, gathered, correlated)
    for actual, expected in zip(both(x, small, kernel, image), wanted, strict=True):
        for a, b in zip(actual, expected, strict=True):
            assert_close(a, b)


@pytest.mark.parametrize("batch", [127, 128, 251, 257])
def test_chunks_of_batches_with_few_divisors_are_about_as_large(batch):
    axis, dtype = conv_axis(48, 3, 2, "same"), jnp.dtype("float32")
    assert convolution._chunk((axis, axis), batch, 32, dtype) == (8, 2)


@pytest.mark.parametrize("implementation", ["xla", "matmul"])
def test_without_input_gradient_only_the_kernel_learns(implementation):
    x, kernel, small = normal(0, 4, 8, 8, 8), normal(1, 3, 3, 8, 8), normal(2, 4, 4, 4, 8)
    options = {"strides": (2, 2), "implementation": implementation}
    expected = value_and_gradients(conv, x, kernel, small, **options)[2]
    options["input_gradient"] = False
    _, x_bar, kernel_bar = value_and_gradients(conv, x, kernel, small, **options)
    assert_close(x_bar, np.zeros_like(x), atol=0)
    assert_close(kernel_bar, expected)


def test_jit_with_donated_images():
    x, kernel = jnp.asarray(normal(0, 2, 4, 4, 3)), jnp.asarray(normal(1, 3, 3, 3, 3))
    expected = conv(x, kernel, implementation="matmul")
    step = jax.jit(lambda x: conv(x, kernel, implementation="matmul"), donate_argnums=0)
    assert_close(step(x), expected)


def test_unsupported_types_fall_back_to_xla_and_say_so_once(caplog):
    convolution._log_fallback.cache_clear()
    x, kernel = jnp.arange(16).reshape(1, 4, 4, 1), jnp.ones((2, 2, 1, 1), int)
    with caplog.at_level(logging.WARNING, logger=convolution.__name__):
        results = [conv(x, kernel, padding="valid", implementation="matmul") for _ in range(2)]
    np.testing.assert_array_equal(results[1][0, 0, :, 0], [10, 14, 18])
    assert len(caplog.records) == 1 and "int64" in caplog.text


@pytest.mark.parametrize(("backend", "matmul"), [("cpu", True), ("gpu", False), ("tpu", False)])
def test_auto_follows_the_backend(monkeypatch, backend, matmul):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    x, kernel = jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1))
    program = str(jax.make_jaxpr(lambda x, k: conv(x, k))(x, kernel))  # a fresh trace
    assert ("conv_general_dilated" not in program) is matmul


@pytest.mark.parametrize(
    ("x", "kernel", "options", "message"),
    [
        ((1, 4, 4, 2), (3, 3, 3, 1), {}, "do not fit"),
        ((4, 4, 2), (3, 3, 2, 1), {}, "do not fit"),
        ((1, 4, 4, 2), (3, 3, 2, 1), {"padding": "full"}, "'same' or 'valid'"),
        ((1, 4, 4, 2), (5, 3, 2, 1), {"padding": "valid"}, "cannot hold"),
        ((1, 4, 4, 2), (3, 3, 2, 1), {"strides": (0, 1)}, "at least 1"),
        ((1, 4, 4, 2), (3, 3, 2, 1), {"implementation": "fft"}, "'auto', 'xla' or 'matmul'"),
    ],
)
def test_misuse_is_explained(x, kernel, options, message):
    with pytest.raises(ValueError, match=message):
        conv(jnp.ones(x), jnp.ones(kernel), **options)


def test_mixed_types_are_refused():
    with pytest.raises(ValueError, match="must be of one type"):
        conv(jnp.ones((1, 4, 4, 1), jnp.float32), jnp.ones((3, 3, 1, 1), jnp.bfloat16))
