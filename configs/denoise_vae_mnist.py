"""A denoising VAE on MNIST: as configs/denoise_mnist.py, but its prior can be sampled.

python -m experiments.train --config=configs/denoise_vae_mnist.py --config.data.path=data/mnist \
    --workdir=runs/denoise_vae_mnist
python -m experiments.restore --workdir=runs/denoise_vae_mnist

Expect a test loss of 135.5 nats (KL 18.5) after 3 of 5 epochs, and then a PSNR of 16.3 dB against
11.2 dB of the input and 15.7 dB of Gaussian means over the kept neighbours (2,000 test images).
"""

from ml_collections import ConfigDict

from configs import denoise_mnist


def get_config() -> ConfigDict:
    """KL weight 1, the textbook objective against the clean image."""
    config = denoise_mnist.get_config()
    config.loss.kl_weight = 1.0
    return config
