"""The reference model for MNIST: Z = 12, means everywhere, KL weight 6.5e-4 (beta 0.0849).

python -m experiments.train --config=configs/mnist_z12.py --config.data.path=data/mnist \
    --workdir=runs/mnist_z12

Published at epochs 3 to 6: loss 0.1135 0.1114 0.1098 0.1085; seen here 0.1172
0.1123 0.1093 0.1073. The published text does not state the learning rate; 1e-3, Keras'
default for Adam, is used.
"""

from ml_collections import ConfigDict

from configs import keras_defaults


def get_config() -> ConfigDict:
    """Model "mnist_z12": 417,305 parameters."""
    config = keras_defaults.get_config()
    config.data.name = "mnist"
    config.data.path = "data/mnist"
    config.data.image_shape = (28, 28, 1)
    config.model.z_dim = 12
    config.model.norm = "none"
    config.model.encoder.filters = (32, 64, 128)
    config.model.encoder.kernel_sizes = (3, 3, 3)
    config.model.encoder.strides = (1, 2, 2)
    config.model.encoder.padding = ("same", "same", "same")
    config.model.decoder.filters = (64, 32)
    config.model.decoder.kernel_sizes = (3, 3, 3)
    config.model.decoder.strides = (2, 2, 1)
    config.model.decoder.padding = ("same", "same", "same")
    config.loss.reduction = "mean"
    config.loss.kl_weight = 6.5e-4
    config.train.batch_size = 256
    config.train.epochs = 37
    return config
