"""Draws one procedural face, part by part from the back to the front."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from vae_jax.data.faces.canvas import REFERENCE_SIZE, WHITE, curve, ellipse, hsv, ribbon
from vae_jax.data.faces.factors import FaceFactors
from vae_jax.data.faces.features import (
    EYE_Y,
    SKULL_HEIGHT,
    SKULL_ROUNDNESS,
    Face,
    beard,
    brows,
    eyes,
    mouth,
    nose,
    skin_of_head,
)


def render_face(factors: FaceFactors, size: tuple[int, int] = REFERENCE_SIZE) -> Image.Image:
    """Draw one face, placed as in CelebA's aligned pictures.

    Args:
        factors: what the face looks like.
        size: width and height in pixels; at 178 x 218 the crop box (0, 40, 178, 218) is
            filled by the face.

    Returns:
        An RGB picture `[height, width, 3]`, uint8.
    """
    face = Face(factors, size)
    for part in PARTS:
        part(face)
    return face.canvas.image()


def background(face: Face) -> None:
    """Two colours that run into each other along one direction."""
    f, canvas = face.f, face.canvas
    width, height = canvas.size
    across = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None, :]
    down = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None]
    share = 0.5 + 0.6 * (
        math.sin(f.background_angle) * across + math.cos(f.background_angle) * down
    )
    first = hsv(f.background_hue, f.background_saturation, f.background_value)
    second = hsv(
        f.background_hue + f.background_hue_step,
        f.background_saturation * 0.8,
        f.background_value * 0.6,
    )
    np.multiply(share, (second - first)[:, None, None], out=canvas.pixels)
    canvas.pixels += first[:, None, None]


def back_hair(face: Face) -> None:
    """Hair behind head and neck; its length goes on without a break from short to long."""
    f = face.f
    if f.bald:
        return
    down = np.linspace(0, 1, 32)
    outside, wave, y = _hair_sides(face, down)
    outside = outside - (1 - min(1.6 * f.hair_length, 1)) * 14 * down**2
    shape = np.concatenate([curve(outside + wave, y), curve(wave - outside, y)[::-1]])
    face.canvas.fill(shape, face.hair * 0.72, gloss=face.gloss)


def _hair_sides(face: Face, down: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Half-width, sideways wave and height `[N]` of the hair from ears (0) to tips (1)."""
    f = face.f
    end = 16 + 96 * f.hair_length
    y = face.ear_y - 3 + down * (end - face.ear_y + 3)
    wave = f.curl * 3.0 * np.minimum(4 * down, 1) * np.sin(down * end / 5.5 + f.hair_phase)
    flare = 10 * f.hair_length * np.sin(np.pi * down * 0.75) - 9 * down**7
    return f.face_width + face.side_volume + flare, wave, y


def body(face: Face) -> None:
    """Neck, the shadow of the chin on it, and clothes."""
    f, canvas = face.f, face.canvas
    neck = 0.52 * f.face_width + 3
    down = np.linspace(0, 1, 10)
    side = curve(neck + 12 * down**3, 30 + 75 * down)
    outline = np.concatenate([side, (side * (-1, 1))[::-1]])
    skin = canvas.region(outline)
    canvas.fill(skin, face.skin * 0.93)
    canvas.glow(-6 * f.light_x, f.chin + 3, neck * 1.1, 14, face.shadow, 0.8, within=skin)
    cloth = hsv(f.cloth_hue, f.cloth_saturation, f.cloth_value)
    x = np.linspace(-118, 118, 60)
    collar = neck + 5
    shoulder = 84 + 25 * np.maximum(np.abs(x) - collar, 0) ** 1.3 / 60**1.3
    shoulder += f.neckline * np.sqrt(np.maximum(1 - (x / collar) ** 2, 0))
    canvas.fill(np.concatenate([curve(x, shoulder), [(118, 150), (-118, 150)]]), cloth)
    middle = np.abs(x) < collar + 4
    canvas.fill(ribbon(curve(x, shoulder)[middle], 3.0), cloth * 0.75)


def front_hair(face: Face) -> None:
    """Hair over the skull down to the hairline, and locks beside the face."""
    f = face.f
    if f.bald:
        return
    angle = np.linspace(np.pi, 2 * np.pi, 60)
    cos, sin = np.cos(angle), np.maximum(-np.sin(angle), 0)
    bumps = 1 + 0.035 * f.curl * np.minimum(3 * sin, 1) * np.sin(angle * 17 + f.hair_phase)
    lift = f.hair_volume * (1.0 + 0.35 * f.part * cos)
    beside = face.side_volume + (f.hair_volume - face.side_volume) * sin
    outer = curve(
        (f.face_width + beside) * np.sign(cos) * np.abs(cos) ** SKULL_ROUNDNESS * bumps,
        face.ear_y - (SKULL_HEIGHT + face.ear_y + lift) * sin**SKULL_ROUNDNESS * bumps,
    )
    u = np.linspace(1, -1, 41)
    inset = 1.5 + 5.0 * f.hair_length
    sweep = (1 - u * u) * (7 * f.part * u + f.hairline_peak * np.exp(-((u / 0.22) ** 2)))
    height = -f.hairline_height + sweep
    if f.bangs:
        height = -f.bangs_height + 1.3 * np.sin(9 * u + f.hair_phase) + 3 * f.part * u
    edge = height + (face.ear_y - height) * np.abs(u) ** (9 if f.bangs else 5)
    inner = curve(u * (f.face_width - inset) - 5 * f.yaw * (1 - u * u), edge)
    shape = np.concatenate([outer, inner])
    face.canvas.fill(shape + (0, 2.0), face.shadow, 0.35, within=face.head_region)
    _locks(face, inset)
    face.canvas.fill(shape, face.hair, gloss=face.gloss)


def _locks(face: Face, inset: float) -> None:
    """Hair that falls beside the face, in front of neck and shoulders."""
    f = face.f
    grown = min(5 * f.hair_length - 0.9, 1.0)
    if grown <= 0.15:
        return
    down = np.linspace(0, 1, 32)
    outside, wave, y = _hair_sides(face, down)
    inside = f.face_width - inset + 7 * down * np.sin(np.pi * down * 0.5) + 4 * down**7
    wave = grown * wave
    inside = outside + grown * np.minimum(inside - outside, 0)
    for side in (-1, 1):
        lock = [curve(side * outside + wave, y), curve(side * inside + wave, y)[::-1]]
        face.canvas.fill(np.concatenate(lock), face.hair, gloss=face.gloss)


def glasses(face: Face) -> None:
    """Frames around both eyes, a bridge, arms to the ears, and faintly tinted lenses."""
    f, canvas = face.f, face.canvas
    if not f.glasses:
        return
    color = hsv(f.frame_hue, 0.55, f.frame_value)
    width, height = f.lens_width, f.lens_height
    for side in (-1, 1):
        middle = side * (f.eye_spacing + 0.5)
        rim = ellipse(middle, EYE_Y + 1.5, width, height, f.lens_power)
        thin = f.frame_width
        opening = ellipse(middle, EYE_Y + 1.5, width - thin, height - thin, f.lens_power)
        lens = canvas.region(face.turn(opening))
        canvas.fill(lens, np.array((70, 84, 100)), f.lens_tint, lit=False)
        glare = curve(np.array([-0.5, -0.1, -0.4, -0.8]) * width + middle, 0.0)
        glare[:, 1] = EYE_Y + 1.5 + np.array([-1, -1, 1, 1]) * height
        canvas.fill(face.turn(glare), WHITE, 0.13, lit=False, within=lens)
        canvas.fill(face.turn(rim), color, hole=lens, lit=False)
        arm = np.array([(middle + side * width, EYE_Y), (side * (f.face_width + 4), EYE_Y - 3)])
        canvas.fill(ribbon(face.turn(arm), thin * 0.9), color, lit=False)
    gap = f.eye_spacing + 0.5 - width + 0.5
    u = np.linspace(-1, 1, 7)
    bridge = curve(u * gap, EYE_Y - 1.5 - 2 * (1 - u * u))
    canvas.fill(ribbon(face.turn(bridge), thin), color, lit=False)


def hat(face: Face) -> None:
    """A round hat: crown, band and a brim of any width."""
    f, canvas = face.f, face.canvas
    if not f.hat:
        return
    color = hsv(f.hat_hue, f.hat_saturation, f.hat_value)
    u = np.linspace(-1, 1, 40)
    hair = 0 if f.bald else f.hair_volume
    wide = f.face_width + 5 + 0.7 * hair
    low = curve(u * wide, -34 + 7 * u * u)
    crown = curve(wide * np.cos(np.pi * (1 + (u + 1) / 2)), -28.0)
    crown[:, 1] += (48 + 0.9 * hair) * np.sin(np.pi * (1 + (u + 1) / 2))
    canvas.fill(low + (0, 3), face.shadow, 0.3, within=face.head_region)
    canvas.fill(np.concatenate([crown, low[::-1]]), color)
    canvas.fill(np.concatenate([low - (0, 13), low[::-1]]), color * 0.66)
    if f.hat_brim > 5:
        reach = wide + f.hat_brim
        brim = [curve(u * reach, -40 + 7 * u * u), curve(u * reach, -31 + 3 * u * u)[::-1]]
        canvas.fill(np.concatenate(brim), color * 0.88)


PARTS = (
    background,
    back_hair,
    body,
    skin_of_head,
    nose,
    beard,
    mouth,
    eyes,
    brows,
    glasses,
    front_hair,
    hat,
)
