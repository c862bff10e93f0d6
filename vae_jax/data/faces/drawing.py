"""Draws one procedural face, part by part from the back to the front."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
from PIL import Image

from vae_jax.data.faces.canvas import (
    REFERENCE_SIZE,
    WHITE,
    Canvas,
    curve,
    ellipse,
    hsv,
    mix,
    ramp,
    ribbon,
)
from vae_jax.data.faces.factors import FaceFactors

# Lengths are pixels and colours sRGB in 0..255; plain numbers below are drawn to taste.
EYE_Y = -4.0
SKULL_ROUNDNESS = 0.82  # Exponent of the superellipse above the eyes; 1 is an ellipse.
SKULL_HEIGHT = 64.0
SKIN_TONES = np.array(
    [
        (84, 54, 42),
        (118, 77, 55),
        (154, 104, 76),
        (190, 136, 103),
        (216, 167, 132),
        (235, 195, 165),
        (247, 218, 196),
    ],
    np.float32,
)
HAIR_TONES = {  # From the darkest to the lightest tone of each colour.
    "black": ((20, 18, 22), (46, 38, 38)),
    "brown": ((70, 44, 29), (126, 83, 52)),
    "blond": ((184, 140, 78), (233, 202, 140)),
    "gray": ((132, 130, 132), (208, 208, 210)),
    "red": ((124, 48, 25), (180, 84, 42)),
}
EYE_TONES = np.array(
    [(58, 36, 24), (104, 66, 34), (118, 110, 56), (72, 120, 86), (74, 126, 176), (132, 160, 176)],
    np.float32,
)


def render_face(factors: FaceFactors, size: tuple[int, int] = REFERENCE_SIZE) -> Image.Image:
    """Draws one face, placed as in CelebA's aligned pictures.

    Args:
        factors: What the face looks like.
        size: Width and height in pixels; at 178 x 218 the crop box (0, 40, 178, 218) is
            filled by the face.

    Returns:
        An RGB picture `[height, width, 3]`, uint8.

    >>> from vae_jax.data.faces.factors import face_factors
    >>> render_face(face_factors(seed=0, index=5)).mode
    'RGB'
    """
    face = Face(factors, size)
    for part in PARTS:
        part(face)
    return face.canvas.image()


class Face:
    """One face under construction: its canvas, its colours, and the shape of its head."""

    def __init__(self, factors: FaceFactors, size: tuple[int, int]):
        self.f = factors
        self.canvas = Canvas(factors, size)
        self.skin = mix(ramp(SKIN_TONES, factors.skin), hsv(0.03, 0.5, 0.85), factors.skin_warmth)
        self.shadow = self.skin * (0.58, 0.48, 0.46)
        dark, pale = HAIR_TONES[factors.hair_color]
        self.hair = mix(np.array(dark, np.float32), pale, factors.hair_tone)
        self.head_region = self.canvas.region(self.head())
        self.light_side = min(max(3 * factors.light_x, -1.0), 1.0)
        self.mouth_y = factors.nose_length + 19.5
        long = min(1.8 * factors.hair_length, 1.0)
        self.ear_y = -1 + 8 * long  # Where the hair over the skull ends.
        self.side_volume = factors.hair_volume * (0.3 + 0.7 * long) + 1

    def turn(self, points: np.ndarray) -> np.ndarray:
        """Returns points on the face, displaced as on a cylinder that turns by the yaw angle."""
        radius = self.f.face_width * 1.12
        angle = np.arcsin(np.clip(points[:, 0] / radius, -0.97, 0.97)) + self.f.yaw
        return curve(radius * np.sin(angle), points[:, 1] + self.f.pitch)

    def head(self, grow: float = 0.0) -> np.ndarray:
        """Returns the outline `[64, 2]` of skull and jaw, `grow` pixels outside the skin."""
        angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
        cos, sin = np.cos(angle), np.sin(angle)
        power = np.where(sin > 0, self.f.jaw_taper, SKULL_ROUNDNESS)
        x = (self.f.face_width + grow) * np.sign(cos) * np.abs(cos) ** power
        return curve(x, np.where(sin > 0, self.f.chin + grow, SKULL_HEIGHT + grow) * sin)

    @cached_property
    def gloss(self) -> np.ndarray:
        """Returns the brightness `[H, W]` of hair: strands from the crown and a band of shine."""
        f, x, y = self.f, self.canvas.x, self.canvas.y
        strand = np.sin((46 * x + 640 * f.part) / (y + 150))
        across, down = x * (1 / (f.face_width + 12)), y * (1 / 80)
        ring = 8 * np.sqrt(across * across + down * down) - 5.9
        shine = np.exp(-ring * ring) * np.clip((26 - y) * (1 / 30), 0, 1)
        return 0.97 + 0.045 * strand + 0.22 * shine


def background(face: Face) -> None:
    """Draws two colours that run into each other along one direction."""
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
    """Draws hair behind head and neck; its length goes on without a break from short to long."""
    f = face.f
    if f.bald:
        return
    down = np.linspace(0, 1, 32)
    outside, wave, y = _hair_sides(face, down)
    outside = outside - (1 - min(1.6 * f.hair_length, 1)) * 14 * down**2
    shape = np.concatenate([curve(outside + wave, y), curve(wave - outside, y)[::-1]])
    face.canvas.fill(shape, face.hair * 0.72, gloss=face.gloss)


def _hair_sides(face: Face, down: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns half-width, sideways wave and height `[N]` of the hair from ears (0) to tips (1)."""
    f = face.f
    end = 16 + 96 * f.hair_length
    y = face.ear_y - 3 + down * (end - face.ear_y + 3)
    wave = f.curl * 3.0 * np.minimum(4 * down, 1) * np.sin(down * end / 5.5 + f.hair_phase)
    flare = 10 * f.hair_length * np.sin(np.pi * down * 0.75) - 9 * down**7
    return f.face_width + face.side_volume + flare, wave, y


def body(face: Face) -> None:
    """Draws the neck, the shadow of the chin on it, and clothes."""
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


def skin_of_head(face: Face) -> None:
    """Draws ears, head and the soft shading of forehead, cheeks, eye sockets and chin."""
    f, canvas = face.f, face.canvas
    for side in (-1, 1):
        x = side * (f.face_width + 1.5) - 9 * f.yaw
        canvas.fill(ellipse(x, 4 + f.pitch, 7, 12.5), face.skin * 0.92)
        canvas.glow(x, 4 + f.pitch, 4, 8, face.shadow, 0.45)
    canvas.fill(face.head_region, face.skin)
    bright = mix(face.skin, np.array((255, 244, 230)), 0.5)
    turned = face.turn(curve(np.array([-26.0, 0, 26]), 0.0))[:, 0]
    canvas.glow(turned[1] + 8 * f.light_x, -36, 19, 13, bright, 0.38)
    canvas.glow(turned[1], f.chin - 11, 11, 7, bright, 0.22)
    for side, x in ((-1, turned[0]), (1, turned[2])):
        canvas.glow(x, 15 + f.pitch, 12, 9, bright, 0.25 + 0.12 * side * f.light_x)
        rosy = mix(face.skin, np.array((226, 74, 84)), 0.55)
        canvas.glow(x + 2 * side, 19 + f.pitch, 13, 9, rosy, f.blush)
        canvas.glow(x * 0.82, EYE_Y - 4 + f.pitch, 14, 8, face.shadow, 0.30)


def nose(face: Face) -> None:
    """Draws the nose: a shaded side away from the light, wings, nostrils and a bright ridge."""
    f, canvas = face.f, face.canvas
    wide, tip = f.nose_width, f.nose_length
    away = -face.light_side
    bright = mix(face.skin, np.array((255, 246, 234)), 0.6)
    ridge = np.array([(0, -10), (0, tip - 10), (0, tip - 3)], np.float64)
    further = 18 * f.yaw * np.array([[0.1, 0], [0.6, 0], [1.0, 0]])  # It stands out.
    (x0, y0), (x1, y1), (x2, y2) = face.turn(ridge) + further
    side = np.array([(x0 + 5 * away, y0), (x1 + 4 * away, y1), (x2 + wide * 0.9 * away, y2)])
    canvas.fill(np.concatenate([side, [(x2, y2 + 2), (x1 + away, y1)]]), face.shadow, 0.16)
    canvas.glow(x2 + wide * 0.6 * away, y2, 5, 6, face.shadow, 0.25)
    canvas.glow(x1 - away, (y0 + y1) / 2, 3, 13, bright, 0.40)
    canvas.glow(x2 - away, y2 - 1, wide * 0.45, 4, bright, 0.50)
    canvas.glow(x2, y2 + 6.5, wide * 0.9, 2.8, face.shadow, 0.45)
    for sign in (-1, 1):
        u = np.linspace(-1.1, 1.5, 9)
        wing = curve(x2 + sign * (wide * 0.72 + 3 * np.cos(u)), y2 + 1 + 3.6 * np.sin(u))
        canvas.fill(ribbon(wing, 1.3), face.shadow, 0.55)
        nostril = ellipse(x2 + sign * wide * 0.42, y2 + 4, wide * 0.2, 1.3)
        canvas.fill(nostril, face.shadow * 0.6, 0.8)


def beard(face: Face) -> None:
    """Draws beard and mustache, from stubble to full; the mouth is drawn over it."""
    f = face.f
    if f.beard <= 0:
        return
    jaw = face.head(grow=0.6 + 7.0 * max(f.beard - 0.45, 0.0))[1:32]  # Temple to temple.
    u = np.linspace(-1, 1, 31)
    line = face.mouth_y - 11.5 - 2.5 * np.exp(-((np.abs(u) - 0.2) ** 2) / 0.02)
    line = line + 4 * np.exp(-(((np.abs(u) - 0.62) / 0.2) ** 2))
    edge = face.turn(curve(u * f.face_width * 0.93, line + (13 - line) * np.abs(u) ** 3.5))
    color = mix(face.hair * 0.8, face.shadow, 0.3)
    opacity = 0.25 + 0.7 * f.beard
    for lift, share in ((-1.0, 0.35), (0.7, 0.6), (2.4, 0.9)):  # Thinner towards its edge.
        shape = np.concatenate([jaw, edge + (0, lift)])
        face.canvas.fill(shape, color, opacity * share, gloss=face.gloss)


def mouth(face: Face) -> None:
    """Draws lips along a curve that the smile bends; open lips show teeth."""
    f, canvas = face.f, face.canvas
    u = np.linspace(-1, 1, 25)
    bow = 1 - u * u
    middle = face.mouth_y + (f.smile + 0.12) * (2.6 - 7.0 * u * u)
    x = u * (f.mouth_width + 2.5 * max(f.smile, 0.0))
    gap = f.mouth_opening * bow
    above, below = middle - 0.3 * gap, middle + 0.7 * gap
    cupid = 1 - 0.3 * np.exp(-((u / 0.16) ** 2))
    top = above - f.lip_thickness * 0.8 * bow**0.8 * cupid
    bottom = below + f.lip_thickness * 1.05 * bow**0.7
    natural = mix(face.skin * (0.88, 0.62, 0.60), np.array((176, 70, 78)), 0.25)
    lips = mix(natural, hsv(f.lip_hue, 0.72, 0.74), f.lipstick)
    centre = face.turn(np.zeros((1, 2)))[0, 0]
    canvas.glow(centre, bottom.max() + 4 + f.pitch, f.mouth_width * 0.6, 2.6, face.shadow, 0.4)
    outline = face.turn(np.concatenate([curve(x, top), curve(x, bottom)[::-1]]))
    canvas.fill(outline, lips)
    canvas.fill(face.turn(np.concatenate([curve(x, top), curve(x, above)[::-1]])), lips * 0.84)
    shine_y = below[12] + f.lip_thickness * 0.5 + f.pitch
    canvas.glow(centre, shine_y, 6, 1.8, mix(lips, WHITE, 0.6), 0.4)
    if f.mouth_opening > 0.6:
        gap_outline = np.concatenate([curve(x, above), curve(x, below)[::-1]])
        inside = canvas.region(face.turn(gap_outline))
        canvas.fill(inside, np.array((84, 24, 30)), lit=False)
        teeth = np.concatenate([curve(x, above), curve(x, above + 0.62 * gap)[::-1]])
        canvas.fill(face.turn(teeth), np.array((244, 240, 232)), 0.95, within=inside)
    else:
        canvas.fill(ribbon(face.turn(curve(x, middle)), 1.1), lips * 0.5, 0.8)
    for side in (-1, 1):
        v = np.linspace(0, 1, 8)
        fold = curve(
            side * (f.nose_width + 3 + 9 * v**1.3), f.nose_length + 2 + 14 * v - 2 * f.smile
        )
        width = 1.8 * np.sin(np.pi * (0.1 + 0.8 * v))
        canvas.fill(ribbon(face.turn(fold), width), face.shadow, 0.07 + 0.25 * max(f.smile, 0))


def eyes(face: Face) -> None:
    """Draws whites, iris, pupil, highlight, lids and lashes."""
    f, canvas = face.f, face.canvas
    u = np.linspace(-1, 1, 17)
    bow = (1 - u * u) ** 0.75
    iris_color = ramp(EYE_TONES, f.eye_color)
    half, opening = 11.2 * f.eye_size, f.eye_opening * f.eye_size
    for side in (-1, 1):
        middle = side * f.eye_spacing
        slant = -side * f.eye_slant * u
        upper = curve(middle + half * u, EYE_Y + slant - opening * bow)
        lower = curve(middle + half * u, EYE_Y + slant + 0.62 * opening * bow)
        eye = canvas.region(face.turn(np.concatenate([upper, lower[::-1]])))
        canvas.fill(eye, np.array((246, 244, 241)))
        x, y = face.turn(np.array([[middle + f.gaze_x, EYE_Y - 0.4 + f.gaze_y]]))[0]
        radius = 5.3 * f.eye_size
        canvas.fill(ellipse(x, y, radius, radius), iris_color * 0.6, within=eye, lit=False)
        inner = radius * 0.84
        canvas.fill(ellipse(x, y, inner, inner), iris_color, within=eye, lit=False)
        pupil = np.array((16, 13, 14))
        canvas.fill(ellipse(x, y, radius * 0.46, radius * 0.46), pupil, within=eye, lit=False)
        spot = ellipse(x + 1.7 * face.light_side, y - 1.8, 1.4, 1.4)
        canvas.fill(spot, WHITE, 0.95, within=eye, lit=False)
        lash = mix(face.shadow, np.array((24, 16, 16)), 0.75)
        canvas.fill(ribbon(face.turn(upper), 1.2 + f.lashes * (0.35 + 0.65 * bow)), lash, 0.95)
        canvas.fill(ribbon(face.turn(lower[2:-2]), 0.8), face.shadow, 0.55)
        crease = face.turn(upper[2:-2] + (0, -3.2))
        canvas.fill(ribbon(crease, 1.2 * bow[2:-2]), face.shadow, 0.5)


def brows(face: Face) -> None:
    """Draws eyebrows: an arch that tapers outwards."""
    f = face.f
    u = np.linspace(0, 1, 14)
    color = mix(face.hair * 0.8, np.array((48, 34, 28)), 0.4)
    taper = f.brow_thickness * (0.55 + 0.75 * np.sin(np.pi * (0.25 + 0.7 * u)))
    for side in (-1, 1):
        x = side * (f.eye_spacing - 12.5 + 25 * u)
        height = f.brow_tilt * (0.5 - u) + f.brow_arch * np.sin(np.pi * u**1.2)
        line = face.turn(curve(x, EYE_Y - f.brow_height - height))
        width = np.maximum(taper - 0.9 * f.brow_thickness * u**4, 0.6)
        face.canvas.fill(ribbon(line, width), color, 0.9)


def glasses(face: Face) -> None:
    """Draws frames around both eyes, a bridge, arms to the ears, and faintly tinted lenses."""
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


def front_hair(face: Face) -> None:
    """Draws hair over the skull down to the hairline, and locks beside the face."""
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
    """Draws hair that falls beside the face, in front of neck and shoulders."""
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


def hat(face: Face) -> None:
    """Draws a round hat: crown, band and a brim of any width."""
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
