"""The spaces in which images are compared."""

import pytest

from vae_jax.studies.feature_spaces import feature_spaces
from vae_jax.types import UserError


def test_unknown_spaces_are_refused():
    for features in (("inception",), ("classifier",)):
        with pytest.raises(UserError, match="--features"):
            feature_spaces(None, features)
