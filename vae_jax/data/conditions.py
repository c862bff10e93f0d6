"""Turns the label or the attributes that a user asks for into the condition of a model."""

from __future__ import annotations

import numpy as np

from vae_jax.types import UserError


def asked_condition(
    condition: str, names: tuple[str, ...], label: str | None, attributes: str | None
) -> np.ndarray | None:
    """Returns the condition that a user asks for.

    Args:
        condition: `config.data.condition` of the model: 'none', 'class' or 'attributes'.
        names: The names of the L classes or attributes of the model.
        label: A class, such as "7", or None.
        attributes: Values such as "Smiling=1,Eyeglasses=0", or None; those left out are 0.

    Returns:
        `[L]` float32, or None for a model without condition.

    Raises:
        UserError: A name is unknown or missing, or given to a model that takes none.
    """
    if condition == "class":
        if label is None or attributes is not None:
            raise UserError(f"this model needs --label, one of its classes {', '.join(names)}")
        if label not in names:
            raise UserError(f"--label={label} is not a class; valid are {', '.join(names)}")
        return np.eye(len(names), dtype=np.float32)[names.index(label)]
    if condition == "attributes":
        if attributes is None or label is not None:
            raise UserError(
                f"this model needs --attributes='{names[0]}=1,...'; valid are {', '.join(names)}, "
                "and those left out are 0"
            )
        return _attribute_values(names, attributes)
    if label is not None or attributes is not None:
        raise UserError(
            "this model was trained without condition: leave out --label and --attributes"
        )
    return None


def _attribute_values(names: tuple[str, ...], text: str) -> np.ndarray:
    """Reads "Smiling=1,Eyeglasses=0" as `[L]` float32, 0 where nothing is said."""
    vector, said = np.zeros(len(names), np.float32), set()
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = (part.strip() for part in item.partition("="))
        if name not in names:
            raise UserError(
                f"--attributes has {name!r}, which this model was not told; valid are "
                f"{', '.join(names)}"
            )
        if value not in ("0", "1") or name in said:
            raise UserError(f"--attributes has {item!r}: give {name}=0 or {name}=1, and once")
        vector[names.index(name)] = float(value)
        said.add(name)
    return vector
