"""The main job: a VAE on procedural faces, no download.

python -m experiments.train --config=configs/faces.py --workdir=runs/faces
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """Small enough for two CPU cores and three minutes."""
    config = default.get_config()
    config.model.encoder.filters = (16, 32, 64, 128)
    config.model.decoder.filters = (64, 32, 16)
    config.train.epochs = 12
    config.train.batch_size = 64
    return config
