"""One model for the whole plane of KL weights and latent sizes, on MNIST.

python -m experiments.train --config=configs/plane_mnist.py --workdir=runs/plane_mnist \
    --config.data.path=data/mnist
python -m experiments.sample --workdir=runs/plane_mnist --kl_weight=0.5 --z_dim=8

The networks and images of configs/ablation_mnist.py, but one training in place of a sweep: with
every image the model is told another KL weight and another latent size. Then
`python -m experiments.plane --workdir=runs/plane_mnist` shows all of them.

Seen after 4 epochs: R + beta K of 113.6 nats at Z = 32 and weight 1, 90.2 at Z = 128 and 0.25.
"""

from ml_collections import ConfigDict

from configs import ablation_mnist


def get_config() -> ConfigDict:
    """Told beta from 0.05 to 8 and Z from 2 to 128, for three times the epochs of one member."""
    config = ablation_mnist.get_config()
    del config["sweep"]
    config.model.z_dim = 128
    # What the model is told with every image, drawn anew in every step; leave out what it is not
    # told. It answers for nothing outside these ranges.
    config.told = ConfigDict()
    config.told.kl_weight = (0.05, 8.0)  # smallest and largest, in units of config.loss.kl_weight
    config.told.z_dim = (2, 4, 8, 16, 32, 64, 128)  # sizes; the last is config.model.z_dim
    config.optimizer.learning_rate = 8e-3  # the best of 2, 4 and 8e-3
    config.train.epochs = 12
    return config
