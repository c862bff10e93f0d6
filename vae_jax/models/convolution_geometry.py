"""Sizes of convolutions along an axis, with padding as TensorFlow places it."""

from __future__ import annotations

from typing import Literal, NamedTuple

Padding = Literal["same", "valid"]


class Axis(NamedTuple):
    """One spatial axis: `small[i]` sees `large[i * stride + tap - low]` for every tap."""

    large: int
    small: int
    kernel: int
    stride: int
    low: int

    @property
    def high(self) -> int:
        """Zeros (or, if negative, unused pixels) after the last pixel of the large image."""
        return (self.small - 1) * self.stride + self.kernel - self.large - self.low


Geometry = tuple[Axis, Axis]


def conv_output_size(size: int, kernel: int, stride: int, padding: Padding) -> int:
    """Length of a convolution's output along one axis.

    Args:
        size: input length in pixels.
        kernel: kernel length in pixels.
        stride: step in pixels.
        padding: 'same' (zeros as TensorFlow places them) or 'valid' (none).

    Returns:
        Output length in pixels.

    Raises:
        ValueError: unknown padding, a size below 1, or a kernel that does not fit ('valid').
    """
    _check_sizes(size, kernel, stride, padding)
    if padding == "same":
        return -(-size // stride)
    if kernel > size:
        raise ValueError(f"a 'valid' convolution of {size} pixels cannot hold a kernel of {kernel}")
    return (size - kernel) // stride + 1


def conv_transpose_output_size(size: int, kernel: int, stride: int, padding: Padding) -> int:
    """Length of a transposed convolution's output along one axis, as Keras defines it.

    Args:
        size: input length in pixels.
        kernel: kernel length in pixels.
        stride: step in pixels.
        padding: 'same' or 'valid'.

    Returns:
        Output length in pixels: `size * stride`, or `(size - 1) * stride + max(kernel, stride)`.

    Raises:
        ValueError: unknown padding or a size below 1.
    """
    _check_sizes(size, kernel, stride, padding)
    return size * stride if padding == "same" else (size - 1) * stride + max(kernel, stride)


def conv_axis(large: int, kernel: int, stride: int, padding: Padding) -> Axis:
    """The axis of a convolution of `large` pixels; see `conv_output_size` for the arguments."""
    small = conv_output_size(large, kernel, stride, padding)
    total = max((small - 1) * stride + kernel - large, 0)  # 0 for 'valid'
    return Axis(large, small, kernel, stride, total // 2)


def _check_sizes(size: int, kernel: int, stride: int, padding: str) -> None:
    if padding not in ("same", "valid"):
        raise ValueError(f"padding must be 'same' or 'valid', not {padding!r}")
    if min(size, kernel, stride) < 1:
        raise ValueError(f"size {size}, kernel {kernel} and stride {stride} must be at least 1")
