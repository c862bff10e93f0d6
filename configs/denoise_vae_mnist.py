"""A denoising VAE on MNIST: as configs/denoise_mnist.py, but its prior can be sampled.

python -m experiments.train --config=configs/denoise_vae_mnist.py --config.data.path=data/mnist \
    --workdir=runs/denoise_vae_mnist
python -m experiments.restore --workdir=runs/denoise_vae_mnist
"""

from ml_collections import ConfigDict

from configs import denoise_mnist


def get_config() -> ConfigDict:
    """KL weight 1, the textbook objective against the clean image."""
    config = denoise_mnist.get_config()
    config.loss.kl_weight = 1.0
    return config
