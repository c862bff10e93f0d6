"""A tiny config whose model is told KL weight and latent size, for several tests."""

from ml_collections import ConfigDict

from configs import tiny

RANGE, SIZES = (0.1, 10.0), (1, 2, 4)


def told_config(names=("kl_weight", "z_dim"), **fields):
    config = tiny.get_config()
    config.told = ConfigDict()
    config.told.kl_weight = RANGE if "kl_weight" in names else ()
    config.told.z_dim = SIZES if "z_dim" in names else ()
    config.update_from_flattened_dict(fields)
    return config
