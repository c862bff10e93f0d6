"""One model for the whole plane of KL weights and latent sizes, on procedural faces.

python -m experiments.train --config=configs/plane_faces.py --workdir=runs/plane_faces
python -m experiments.plane --workdir=runs/plane_faces

The networks and images of configs/ablation_faces.py; configs/plane_mnist.py says how it works.

Seen after 18 epochs (a minute on two CPU cores): R + beta K of 1,897.8 nats at Z = 64 and weight
0.5, 1,876.2 at 0.1, where members that were trained alone for 6 epochs have 1,902.3 and 1,875.5.
"""

from ml_collections import ConfigDict

from configs import ablation_faces


def get_config() -> ConfigDict:
    """Told KL weights from 0.03 to 15 (beta 0.09 to 45) and Z from 2 to 200."""
    config = ablation_faces.get_config()
    del config["sweep"]
    config.model.z_dim = 200
    config.told = ConfigDict()
    config.told.kl_weight = (0.03, 15.0)  # from below what is asked for: ends are learned worst
    config.told.z_dim = (2, 4, 8, 16, 32, 64, 128, 200)
    config.optimizer.learning_rate = 6e-3  # 4 times a member's, as on MNIST; not tuned
    config.train.epochs = 18
    return config
