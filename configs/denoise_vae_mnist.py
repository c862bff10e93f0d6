"""A denoising VAE on MNIST: as configs/denoise_mnist.py, but its prior can be sampled.

python -m experiments.train --config=configs/denoise_vae_mnist.py --config.data.path=data/mnist \
    --workdir=runs/denoise_vae_mnist
python -m experiments.restore --workdir=runs/denoise_vae_mnist

Expect a test loss of 132.3 nats (KL 19.5) after 5 epochs, under a minute on two CPU cores, and a
PSNR of 16.6 dB as it comes out, against 11.1 dB of the input (1,000 test images); the page compares
like with like, with the kept pixels as they were for the model and for everything beside it.
"""

from ml_collections import ConfigDict

from configs import denoise_mnist


def get_config() -> ConfigDict:
    """KL weight 1, the textbook objective against the clean image."""
    config = denoise_mnist.get_config()
    config.loss.kl_weight = 1.0
    return config
