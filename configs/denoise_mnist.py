"""A denoising autoencoder on MNIST: 80 % of the pixels are lost, the target is the clean digit.

python -m experiments.train --config=configs/denoise_mnist.py --config.data.path=data/mnist \
    --workdir=runs/denoise_mnist
python -m experiments.restore --workdir=runs/denoise_mnist
"""

from ml_collections import ConfigDict

from configs import mnist


def get_config() -> ConfigDict:
    """The model of configs/mnist.py, KL weight 0: an autoencoder."""
    config = mnist.get_config()
    config.data.corruption.drop_fraction = 0.8
    config.loss.kl_weight = 0.0
    config.train.epochs = 5
    return config
