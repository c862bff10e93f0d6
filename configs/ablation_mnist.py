"""How KL weight and latent size move reconstructions and samples, on MNIST.

python -m experiments.ablation --config=configs/ablation_mnist.py --workdir=runs/ablation_mnist \
    --config.data.path=data/mnist

48 models: six values of beta around the textbook's 1 at four latent sizes and two seeds, each
with its own order of the images. Ends with runs/ablation_mnist/ablation/index.html. Five seeds
resolve more: --config.sweep.seed='(0, 1, 2, 3, 4)'.

Seen with five seeds at Z = 8, 32 and 128: samples of N(0, I) are best at Z = 32 and beta 1 (sliced
Wasserstein distance 0.0466 +- 0.0020, real to real 0.022; beta 0.5 is not resolved from it), those
of a Gaussian fitted to the codes at Z = 32 without KL (0.0414 +- 0.0025); reconstructions at Z =
128 without KL (25.8 dB).
"""

from ml_collections import ConfigDict

from configs import ablation_faces, mnist


def get_config() -> ConfigDict:
    """The model of configs/mnist.py with half the filters, on 20,000 images."""
    config = mnist.get_config()
    config.data.train_count = 20000
    config.data.validation_count = 2000
    config.data.test_count = 2000
    config.model.encoder.filters = (16, 32)
    config.model.decoder.filters = (16,)
    config.optimizer.learning_rate = 2e-3
    config.optimizer.schedule = "cosine"
    config.train.epochs = 4
    config.checkpoint.every_epochs = 4
    config.sweep = ablation_faces.get_config().sweep
    config.sweep.kl_weight = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
    config.sweep.z_dim = (2, 8, 32, 128)
    return config
