"""One model for the whole plane of KL weights and latent sizes, on CelebA at 64x64.

python -m experiments.prepare_celeba --source=img_align_celeba.zip --out=data/celeba-64 --size=64
python -m experiments.train --config=configs/plane_celeba.py --workdir=runs/plane_celeba
python -m experiments.plane --workdir=runs/plane_celeba

The network of configs/default.py; configs/plane_mnist.py says how it works. Not trained yet: what
the smaller network of configs/plane_faces.py makes of these images is in experiments/README.md.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """Told KL weights from 0.03 to 15 (beta 0.09 to 45) and Z from 2 to 256."""
    config = default.get_config()
    config.data.name = "celeba"
    config.data.path = "data/celeba-64"
    config.model.z_dim = 256
    config.told = ConfigDict()
    config.told.kl_weight = (0.03, 15.0)
    config.told.z_dim = (2, 4, 8, 16, 32, 64, 128, 256)
    config.optimizer.learning_rate = 2e-3  # larger ones do not shut dimensions in time
    config.optimizer.schedule = "cosine"
    config.train.epochs = 24
    return config
