"""How the KL weight moves a denoising VAE on MNIST with 80 % of the pixels lost.

python -m experiments.ablation --config=configs/ablation_denoise.py --config.data.path=data/mnist \
    --workdir=runs/ablation_denoise
python -m experiments.restore --workdir=runs/ablation_denoise/members/w1-z16-lr0.001-s0

Three KL weights, three epochs of 20,000 images, in one program after the other.
"""

from ml_collections import ConfigDict

from configs import ablation_faces, denoise_vae_mnist


def get_config() -> ConfigDict:
    """configs/denoise_vae_mnist.py with a sweep over its KL weight."""
    config = denoise_vae_mnist.get_config()
    config.data.train_count = 20000
    config.data.validation_count = 2000
    config.data.test_count = 2000
    config.train.epochs = 3
    config.sweep = ablation_faces.get_config().sweep
    config.sweep.kl_weight = (0.0, 1.0, 4.0)
    config.sweep.z_dim = ()
    config.sweep.seed = ()
    return config
