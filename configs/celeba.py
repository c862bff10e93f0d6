"""The reference run: CelebA at 96x96, Z = 256, KL weight 5 (beta = 15), 24 epochs.

python -m experiments.prepare_celeba --source=img_align_celeba.zip --out=data/celeba-96 --size=96
python -m experiments.train --config=configs/celeba.py --workdir=runs/celeba

Expect the loss to start above 6,900 and to fall to about 5,100, and the weighted KL to rise from
30 to 176 (35.2 nats, 3.45 % of the loss), as published for 170,000 training images.
Seen here on 15,728 faces: 7,777 at the first step, 5,283 after two epochs, the weighted
KL then at 202 (3.8 %).
"""

from ml_collections import ConfigDict

from configs import keras_defaults


def get_config() -> ConfigDict:
    """Model "celeba96": 7,867,011 parameters."""
    config = keras_defaults.get_config()
    config.data.name = "celeba"
    config.data.path = "data/celeba-96"
    config.data.image_shape = (96, 96, 3)
    config.model.z_dim = 256
    config.loss.kl_weight = 5.0
    config.optimizer.learning_rate = 5e-4
    config.train.epochs = 24
    return config
