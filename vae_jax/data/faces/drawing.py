"""Draws one procedural face, part by part from the back to the front."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from vae_jax.data.faces.canvas import (
    REFERENCE_SIZE,
    WHITE,
    Canvas,
    band,
    curve,
    ellipse,
    hsv,
    mix,
    ramp,
    ribbon,
    steps,
)
from vae_jax.data.faces.factors import FaceFactors

# Lengths are pixels and colours sRGB in 0..255; plain numbers below are drawn to taste.
EYE_Y = -4.0
SIDES = np.array([[-1.0], [1.0]])  # Left and right of the picture, for shapes in pairs.
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
    return face.canvas.image(face.gloss)


class Face:
    """One face under construction: its canvas, its colours, and the shape of its head."""

    around = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    cos, sin = np.cos(around), np.sin(around)

    def __init__(self, factors: FaceFactors, size: tuple[int, int]):
        self.f = factors
        self.canvas = Canvas(factors, size)
        self.skin = mix(ramp(SKIN_TONES, factors.skin), hsv(0.03, 0.5, 0.85), factors.skin_warmth)
        self.shadow = self.skin * (0.58, 0.48, 0.46)
        dark, pale = HAIR_TONES[factors.hair_color]
        self.hair = mix(np.array(dark, np.float32), pale, factors.hair_tone)
        self.head_shape = self.canvas.shape(self.head())
        self.light_side = min(max(3 * factors.light_x, -1.0), 1.0)
        self.mouth_y = factors.nose_length + 19.5
        long = min(1.8 * factors.hair_length, 1.0)
        self.ear_y = -1 + 8 * long  # Where the hair over the skull ends.
        self.side_volume = factors.hair_volume * (0.3 + 0.7 * long) + 1

    def turn(self, points: np.ndarray) -> np.ndarray:
        """Returns points displaced as on a cylinder that turns by the yaw angle."""
        radius = self.f.face_width * 1.12
        sine = np.minimum(np.maximum(np.real(points) / radius, -0.97), 0.97)
        return curve(radius * np.sin(np.arcsin(sine) + self.f.yaw), np.imag(points) + self.f.pitch)

    def head(self, grow: float = 0.0) -> np.ndarray:
        """Returns the outline `[64]` of skull and jaw, `grow` pixels outside the skin."""
        cos, sin = self.cos, self.sin
        power = np.where(sin > 0, self.f.jaw_taper, SKULL_ROUNDNESS)
        x = (self.f.face_width + grow) * np.sign(cos) * np.abs(cos) ** power
        return curve(x, np.where(sin > 0, self.f.chin + grow, SKULL_HEIGHT + grow) * sin)

    def gloss(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Returns the brightness `[h, w]` of hair: strands from the crown and a band of shine."""
        f = self.f
        strand = np.sin((46 * x + 640 * f.part) / (y + 150))
        across, down = x * (1 / (f.face_width + 12)), y * (1 / 80)
        ring = 8 * np.sqrt(across * across + down * down) - 5.9
        shine = np.exp(-ring * ring) * np.clip((26 - y) * (1 / 30), 0, 1)
        return 0.97 + 0.045 * strand + 0.22 * shine


def background(face: Face) -> None:
    """Draws two colours that run into each other along one direction."""
    f, canvas = face.f, face.canvas
    width, height = canvas.size
    across = steps(-0.5, 0.5, width).astype(np.float32)[None, :]
    down = steps(-0.5, 0.5, height).astype(np.float32)[:, None]
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
    down = steps(0, 1, 32)
    outside, wave, y = _hair_sides(face, down)
    outside = outside - (1 - min(1.6 * f.hair_length, 1)) * 14 * down**2
    shape = band(curve(outside + wave, y), curve(wave - outside, y))
    face.canvas.fill(shape, face.hair * 0.72, glossy=True)


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
    down = steps(0, 1, 10)
    side = curve(neck + 12 * down**3, 30 + 75 * down)
    skin = canvas.shape(band(side, -side.conj()))
    canvas.fill(skin, face.skin * 0.93)
    canvas.glow(-6 * f.light_x, f.chin + 3, neck * 1.1, 14, face.shadow, 0.8, within=skin)
    cloth = hsv(f.cloth_hue, f.cloth_saturation, f.cloth_value)
    x = steps(-118, 118, 60)
    collar = neck + 5
    shoulder = 84 + 25 * np.maximum(np.abs(x) - collar, 0) ** 1.3 / 60**1.3
    shoulder += f.neckline * np.sqrt(np.maximum(1 - (x / collar) ** 2, 0))
    canvas.fill(np.concatenate([curve(x, shoulder), [118 + 150j, -118 + 150j]]), cloth)
    middle = np.abs(x) < collar + 4
    canvas.fill(ribbon(curve(x, shoulder)[middle], 3.0), cloth * 0.75)


def skin_of_head(face: Face) -> None:
    """Draws ears, head and the soft shading of forehead, cheeks, eye sockets and chin."""
    f, canvas = face.f, face.canvas
    for side in (-1, 1):
        x = side * (f.face_width + 1.5) - 9 * f.yaw
        canvas.fill(ellipse(x, 4 + f.pitch, 7, 12.5), face.skin * 0.92)
        canvas.glow(x, 4 + f.pitch, 4, 8, face.shadow, 0.45)
    canvas.fill(face.head_shape, face.skin)
    bright = mix(face.skin, np.array((255, 244, 230)), 0.5)
    turned = np.real(face.turn(np.array([-26, 0, 26], complex)))
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
    further = 18 * f.yaw * np.array([0.1, 0.6, 1.0])  # It stands out.
    ridge = face.turn(1j * np.array([-10, tip - 10, tip - 3])) + further
    (x0, x1, x2), (y0, y1, y2) = np.real(ridge), np.imag(ridge)
    x = np.array([x0 + 5 * away, x1 + 4 * away, x2 + wide * 0.9 * away, x2, x1 + away])
    canvas.fill(curve(x, np.array([y0, y1, y2, y2 + 2, y1])), face.shadow, 0.16)
    canvas.glow(x2 + wide * 0.6 * away, y2, 5, 6, face.shadow, 0.25)
    canvas.glow(x1 - away, (y0 + y1) / 2, 3, 13, bright, 0.40)
    canvas.glow(x2 - away, y2 - 1, wide * 0.45, 4, bright, 0.50)
    canvas.glow(x2, y2 + 6.5, wide * 0.9, 2.8, face.shadow, 0.45)
    u = steps(-1.1, 1.5, 9)
    wings = curve(x2 + SIDES * (wide * 0.72 + 3 * np.cos(u)), y2 + 1 + 3.6 * np.sin(u))
    nostrils = ellipse(x2 + SIDES * wide * 0.42, y2 + 4, wide * 0.2, 1.3)
    for wing, nostril in zip(ribbon(wings, 1.3), nostrils, strict=True):
        canvas.fill(wing, face.shadow, 0.55)
        canvas.fill(nostril, face.shadow * 0.6, 0.8)


def beard(face: Face) -> None:
    """Draws beard and mustache, from stubble to full; the mouth is drawn over it."""
    f = face.f
    if f.beard <= 0:
        return
    jaw = face.head(grow=0.6 + 7.0 * max(f.beard - 0.45, 0.0))[1:32]  # Temple to temple.
    u = steps(-1, 1, 31)
    line = face.mouth_y - 11.5 - 2.5 * np.exp(-((np.abs(u) - 0.2) ** 2) / 0.02)
    line = line + 4 * np.exp(-(((np.abs(u) - 0.62) / 0.2) ** 2))
    edge = face.turn(curve(u * f.face_width * 0.93, line + (13 - line) * np.abs(u) ** 3.5))
    color = mix(face.hair * 0.8, face.shadow, 0.3)
    opacity = 0.25 + 0.7 * f.beard
    for lift, share in ((-1.0, 0.35), (0.7, 0.6), (2.4, 0.9)):  # Thinner towards its edge.
        shape = np.concatenate([jaw, edge + 1j * lift])
        face.canvas.fill(shape, color, opacity * share, glossy=True)


def mouth(face: Face) -> None:
    """Draws lips along a curve that the smile bends; open lips show teeth."""
    f, canvas = face.f, face.canvas
    u = steps(-1, 1, 25)
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
    centre = np.real(face.turn(np.zeros(1, complex)))[0]
    canvas.glow(centre, bottom.max() + 4 + f.pitch, f.mouth_width * 0.6, 2.6, face.shadow, 0.4)
    teeth = above + 0.62 * gap
    lines = curve(x, np.stack([top, above, middle, teeth, below, bottom]))
    top_line, above_line, middle_line, teeth_line, below_line, bottom_line = face.turn(lines)
    canvas.fill(band(top_line, bottom_line), lips)
    canvas.fill(band(top_line, above_line), lips * 0.84)
    shine_y = below[12] + f.lip_thickness * 0.5 + f.pitch
    canvas.glow(centre, shine_y, 6, 1.8, mix(lips, WHITE, 0.6), 0.4)
    if f.mouth_opening > 0.6:
        inside = canvas.shape(band(above_line, below_line))
        canvas.fill(inside, np.array((84, 24, 30)), lit=False)
        canvas.fill(band(above_line, teeth_line), np.array((244, 240, 232)), 0.95, within=inside)
    else:
        canvas.fill(ribbon(middle_line, 1.1), lips * 0.5, 0.8)
    v = steps(0, 1, 8)
    folds = curve(SIDES * (f.nose_width + 3 + 9 * v**1.3), f.nose_length + 2 + 14 * v - 2 * f.smile)
    for fold in ribbon(face.turn(folds), 1.8 * np.sin(np.pi * (0.1 + 0.8 * v))):
        canvas.fill(fold, face.shadow, 0.07 + 0.25 * max(f.smile, 0))


def eyes(face: Face) -> None:
    """Draws whites, iris, pupil, highlight, lids and lashes."""
    f, canvas = face.f, face.canvas
    u = steps(-1, 1, 17)
    bow = (1 - u * u) ** 0.75
    iris_color = ramp(EYE_TONES, f.eye_color)
    half, opening = 11.2 * f.eye_size, f.eye_opening * f.eye_size
    middle, slant = SIDES * f.eye_spacing, -SIDES * f.eye_slant * u
    upper = curve(middle + half * u, EYE_Y + slant - opening * bow)
    lower = curve(middle + half * u, EYE_Y + slant + 0.62 * opening * bow)
    upper, lower, crease = face.turn(np.stack([upper, lower, upper - 3.2j]))  # [2, 17]
    gaze = face.turn(curve(middle + f.gaze_x, EYE_Y - 0.4 + f.gaze_y))
    x, y = np.real(gaze), np.imag(gaze)
    radius = 5.3 * f.eye_size
    whites = band(upper, lower)
    rings, irises, pupils = (ellipse(x, y, radius * r, radius * r) for r in (1.0, 0.84, 0.46))
    spots = ellipse(x + 1.7 * face.light_side, y - 1.8, 1.4, 1.4)
    lashes = ribbon(upper, 1.2 + f.lashes * (0.35 + 0.65 * bow))
    rims = ribbon(lower[:, 2:-2], 0.8)
    creases = ribbon(crease[:, 2:-2], 1.2 * bow[2:-2])
    lash = mix(face.shadow, np.array((24, 16, 16)), 0.75)
    for side in (0, 1):
        eye = canvas.shape(whites[side])
        canvas.fill(eye, np.array((246, 244, 241)))
        canvas.fill(rings[side], iris_color * 0.6, within=eye, lit=False)
        canvas.fill(irises[side], iris_color, within=eye, lit=False)
        canvas.fill(pupils[side], np.array((16, 13, 14)), within=eye, lit=False)
        canvas.fill(spots[side], WHITE, 0.95, within=eye, lit=False)
        canvas.fill(lashes[side], lash, 0.95)
        canvas.fill(rims[side], face.shadow, 0.55)
        canvas.fill(creases[side], face.shadow, 0.5)


def brows(face: Face) -> None:
    """Draws eyebrows: an arch that tapers outwards."""
    f = face.f
    u = steps(0, 1, 14)
    color = mix(face.hair * 0.8, np.array((48, 34, 28)), 0.4)
    taper = f.brow_thickness * (0.55 + 0.75 * np.sin(np.pi * (0.25 + 0.7 * u)))
    height = f.brow_tilt * (0.5 - u) + f.brow_arch * np.sin(np.pi * u**1.2)
    lines = curve(SIDES * (f.eye_spacing - 12.5 + 25 * u), EYE_Y - f.brow_height - height)
    width = np.maximum(taper - 0.9 * f.brow_thickness * u**4, 0.6)
    for brow in ribbon(face.turn(lines), width):
        face.canvas.fill(brow, color, 0.9)


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
        lens = canvas.shape(face.turn(opening))
        canvas.fill(lens, np.array((70, 84, 100)), f.lens_tint, lit=False)
        glare = np.array([-0.5, -0.1, -0.4, -0.8]) * width + middle
        glare = curve(glare, EYE_Y + 1.5 + np.array([-1, -1, 1, 1]) * height)
        canvas.fill(face.turn(glare), WHITE, 0.13, lit=False, within=lens)
        canvas.fill(face.turn(rim), color, hole=lens, lit=False)
        ends = np.array([middle + side * width, side * (f.face_width + 4)])
        arm = curve(ends, np.array([EYE_Y, EYE_Y - 3]))
        canvas.fill(ribbon(face.turn(arm), thin * 0.9), color, lit=False)
    gap = f.eye_spacing + 0.5 - width + 0.5
    u = steps(-1, 1, 7)
    bridge = curve(u * gap, EYE_Y - 1.5 - 2 * (1 - u * u))
    canvas.fill(ribbon(face.turn(bridge), thin), color, lit=False)


def front_hair(face: Face) -> None:
    """Draws hair over the skull down to the hairline, and locks beside the face."""
    f = face.f
    if f.bald:
        return
    angle = steps(np.pi, 2 * np.pi, 60)
    cos, sin = np.cos(angle), np.maximum(-np.sin(angle), 0)
    bumps = 1 + 0.035 * f.curl * np.minimum(3 * sin, 1) * np.sin(angle * 17 + f.hair_phase)
    lift = f.hair_volume * (1.0 + 0.35 * f.part * cos)
    beside = face.side_volume + (f.hair_volume - face.side_volume) * sin
    outer = curve(
        (f.face_width + beside) * np.sign(cos) * np.abs(cos) ** SKULL_ROUNDNESS * bumps,
        face.ear_y - (SKULL_HEIGHT + face.ear_y + lift) * sin**SKULL_ROUNDNESS * bumps,
    )
    u = steps(1, -1, 41)
    inset = 1.5 + 5.0 * f.hair_length
    sweep = (1 - u * u) * (7 * f.part * u + f.hairline_peak * np.exp(-((u / 0.22) ** 2)))
    height = -f.hairline_height + sweep
    if f.bangs:
        height = -f.bangs_height + 1.3 * np.sin(9 * u + f.hair_phase) + 3 * f.part * u
    edge = height + (face.ear_y - height) * np.abs(u) ** (9 if f.bangs else 5)
    inner = curve(u * (f.face_width - inset) - 5 * f.yaw * (1 - u * u), edge)
    shape = np.concatenate([outer, inner])
    face.canvas.fill(shape + 2j, face.shadow, 0.35, within=face.head_shape)
    _locks(face, inset)
    face.canvas.fill(shape, face.hair, glossy=True)


def _locks(face: Face, inset: float) -> None:
    """Draws hair that falls beside the face, in front of neck and shoulders."""
    f = face.f
    grown = min(5 * f.hair_length - 0.9, 1.0)
    if grown <= 0.15:
        return
    down = steps(0, 1, 32)
    outside, wave, y = _hair_sides(face, down)
    inside = f.face_width - inset + 7 * down * np.sin(np.pi * down * 0.5) + 4 * down**7
    wave = grown * wave
    inside = outside + grown * np.minimum(inside - outside, 0)
    for side in (-1, 1):
        lock = band(curve(side * outside + wave, y), curve(side * inside + wave, y))
        face.canvas.fill(lock, face.hair, glossy=True)


def hat(face: Face) -> None:
    """Draws a round hat: crown, band and a brim of any width."""
    f, canvas = face.f, face.canvas
    if not f.hat:
        return
    color = hsv(f.hat_hue, f.hat_saturation, f.hat_value)
    u = steps(-1, 1, 40)
    hair = 0 if f.bald else f.hair_volume
    wide = f.face_width + 5 + 0.7 * hair
    low = curve(u * wide, -34 + 7 * u * u)
    angle = np.pi * (1 + (u + 1) / 2)
    crown = curve(wide * np.cos(angle), -28.0 + (48 + 0.9 * hair) * np.sin(angle))
    canvas.fill(low + 3j, face.shadow, 0.3, within=face.head_shape)
    canvas.fill(band(crown, low), color)
    canvas.fill(band(low - 13j, low), color * 0.66)
    if f.hat_brim > 5:
        reach = wide + f.hat_brim
        brim = band(curve(u * reach, -40 + 7 * u * u), curve(u * reach, -31 + 3 * u * u))
        canvas.fill(brim, color * 0.88)


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
