"""Known factors of procedural faces, and the binary attributes that follow from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vae_jax.types import UserError

FAIR_SKIN = 0.35  # Light hair and eyes come with skin lighter than this.
HAIR_UP_TO = {  # Upper ends of the share of each hair colour.
    True: (("black", 0.18), ("brown", 0.45), ("blond", 0.76), ("gray", 0.90), ("red", 1.0)),
    False: (("black", 0.52), ("brown", 0.82), ("gray", 1.0)),
}


@dataclass(frozen=True)
class FaceFactors:
    """Everything that decides how a face looks; angles in radians, lengths in pixels."""

    shift_x: float
    shift_y: float
    roll: float
    yaw: float  # Positive turns the face to the right of the picture.
    pitch: float
    zoom: float
    light_x: float  # -1 from the left of the picture, 1 from the right.
    light_y: float
    light_strength: float
    exposure: float
    background_hue: float
    background_hue_step: float
    background_saturation: float
    background_value: float
    background_angle: float
    cloth_hue: float
    cloth_saturation: float
    cloth_value: float
    neckline: float
    skin: float  # 0 dark, 1 light.
    skin_warmth: float
    blush: float
    face_width: float  # Half the width of the head.
    chin: float
    jaw_taper: float  # Below 1 square, above 1 pointed.
    eye_spacing: float
    eye_size: float
    eye_opening: float
    eye_slant: float
    eye_color: float  # 0 dark brown, 1 light grey-blue.
    gaze_x: float
    gaze_y: float
    lashes: float
    brow_height: float
    brow_thickness: float
    brow_arch: float
    brow_tilt: float
    nose_width: float
    nose_length: float
    mouth_width: float
    smile: float
    mouth_opening: float
    lip_thickness: float
    lip_hue: float
    lipstick: float
    beard: float  # 0 none, 1 full.
    bald: bool
    hair_color: str
    hair_tone: float
    hair_length: float
    hair_volume: float
    hair_phase: float
    curl: float
    part: float
    hairline_height: float
    hairline_peak: float
    bangs: bool
    bangs_height: float
    glasses: bool
    frame_hue: float
    frame_value: float
    frame_width: float
    lens_width: float
    lens_height: float
    lens_power: float
    lens_tint: float
    hat: bool
    hat_hue: float
    hat_saturation: float
    hat_value: float
    hat_brim: float


def face_factors(seed: int, index: int) -> FaceFactors:
    """Draws the factors of one face; they depend on `(seed, index)` alone.

    Args:
        seed: 0 or more, below 2**64.
        index: The row of the face, from 0; `write_faces` calls its file `{index + 1:06d}.jpg`.

    Raises:
        UserError: `seed` or `index` is negative or too large.
    """
    if not (0 <= seed < 2**64 and 0 <= index < 2**64):
        raise UserError(f"seed {seed} and index {index} of a face must lie in 0 .. 2**64 - 1")
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, index], np.uint64)))
    draws = iter(generator.random(96).tolist())

    def between(low: float, high: float) -> float:
        return low + (high - low) * next(draws)

    def middling(low: float, high: float) -> float:
        return low + (high - low) * 0.5 * (next(draws) + next(draws))

    def chance(share: float) -> bool:
        return next(draws) < share

    bearded, open_mouth = chance(0.30), chance(0.42)
    hair_draw = next(draws)
    eye_spacing = middling(18.5, 23.0)
    smile = between(-0.15, 1.0)
    skin = between(0, 1)
    fair = skin > FAIR_SKIN
    return FaceFactors(
        shift_x=middling(-5, 5),
        shift_y=middling(-4, 4),
        roll=middling(-0.13, 0.13),
        yaw=middling(-0.26, 0.26),
        pitch=middling(-3.0, 3.0),
        zoom=middling(1.0, 1.13),
        light_x=between(-1, 1),
        light_y=between(-0.9, -0.1),
        light_strength=between(0.08, 0.26),
        exposure=between(0.88, 1.08),
        background_hue=between(0, 1),
        background_hue_step=between(-0.12, 0.12),
        background_saturation=between(0.12, 0.6),
        background_value=between(0.35, 0.95),
        background_angle=between(-np.pi / 2, np.pi / 2),
        cloth_hue=between(0, 1),
        cloth_saturation=between(0.1, 0.75),
        cloth_value=between(0.25, 0.9),
        neckline=between(0, 12),
        skin=skin,
        skin_warmth=between(0, 0.12),
        blush=between(0, 0.45),
        face_width=middling(42, 53),
        chin=middling(61, 71),
        jaw_taper=middling(0.70, 1.08),
        eye_spacing=eye_spacing,
        eye_size=middling(0.86, 1.10),
        eye_opening=between(3.2, 7.2),
        eye_slant=middling(-0.5, 1.8),
        eye_color=between(0, 1 if fair else 0.4),
        gaze_x=middling(-4.0, 4.0),
        gaze_y=middling(-1.0, 1.2),
        lashes=between(0.4, 2.2),
        brow_height=middling(12.5, 16.5),
        brow_thickness=between(1.8, 4.6),
        brow_arch=between(0, 4.5),
        brow_tilt=middling(-2.0, 2.6),
        nose_width=middling(7.5, 12.0),
        nose_length=middling(18, 24),
        mouth_width=middling(14.5, 20.5),
        smile=smile,
        mouth_opening=between(2.5, 9.0) if open_mouth else 0.0 * next(draws),
        lip_thickness=between(3.0, 6.6),
        lip_hue=between(-0.06, 0.02),
        lipstick=between(0, 0.12) if bearded else between(0, 0.75),
        beard=between(0.15, 1.0) if bearded else 0.0 * next(draws),
        bald=chance(0.16),
        hair_color=_hair_color(hair_draw, fair),
        hair_tone=between(0, 1),
        hair_length=between(0, 0.7) if bearded else between(0, 1),
        hair_volume=between(4, 15),
        hair_phase=between(0, 2 * np.pi),
        curl=max(between(-0.6, 1.0), 0.0),
        part=between(-1, 1),
        hairline_height=between(33, 50),
        hairline_peak=between(-2, 6),
        bangs=chance(0.28),
        bangs_height=between(20, 26),
        glasses=chance(0.27),
        frame_hue=between(0, 1),
        frame_value=between(0.08, 0.55),
        frame_width=between(1.4, 3.2),
        lens_width=min(between(13.5, 17.0), eye_spacing - 3.0),
        lens_height=between(11.0, 15.0),
        lens_power=between(0.5, 1.0),
        lens_tint=between(0.0, 0.3),
        hat=chance(0.15),
        hat_hue=between(0, 1),
        hat_saturation=between(0.2, 0.8),
        hat_value=between(0.25, 0.9),
        hat_brim=between(0, 26),
    )


def _hair_color(draw: float, fair: bool) -> str:
    return next(color for color, end in HAIR_UP_TO[fair] if draw < end)


def _hair_is(color: str) -> Callable[[FaceFactors], bool]:
    return lambda f: f.hair_color == color and not f.bald


_ATTRIBUTE_RULES: dict[str, Callable[[FaceFactors], bool]] = {
    "Arched_Eyebrows": lambda f: f.brow_arch > 2.6,
    "Bald": lambda f: f.bald and not f.hat,
    "Bangs": lambda f: f.bangs and not f.bald and not f.hat,
    "Beard": lambda f: f.beard > 0,
    "Big_Lips": lambda f: f.lip_thickness > 5.2,
    "Black_Hair": _hair_is("black"),
    "Blond_Hair": _hair_is("blond"),
    "Brown_Hair": _hair_is("brown"),
    "Bushy_Eyebrows": lambda f: f.brow_thickness > 3.6,
    "Chubby": lambda f: f.face_width > 49,
    "Eyeglasses": lambda f: f.glasses,
    "Gray_Hair": _hair_is("gray"),
    "Long_Hair": lambda f: f.hair_length > 0.5 and not f.bald,
    "Looking_Left": lambda f: f.gaze_x + 14 * f.yaw < -1.0,  # To the left of the picture.
    "Mouth_Slightly_Open": lambda f: f.mouth_opening > 0,
    "Narrow_Eyes": lambda f: f.eye_opening < 4.3,
    "Pale_Skin": lambda f: f.skin > 0.8,
    "Smiling": lambda f: f.smile > 0.4,
    "Wavy_Hair": lambda f: f.curl > 0.3 and not f.bald,
    "Wearing_Hat": lambda f: f.hat,
}
ATTRIBUTES = tuple(_ATTRIBUTE_RULES)


def face_attributes(factors: FaceFactors) -> tuple[bool, ...]:
    """Returns the binary attributes of a face, in the order of `ATTRIBUTES`."""
    return tuple(rule(factors) for rule in _ATTRIBUTE_RULES.values())
