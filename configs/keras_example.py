"""The VAE of the keras.io example on MNIST: Z = 2, ReLU, dense 16, KL weight 1.

python -m experiments.train --config=configs/keras_example.py --config.data.path=data/mnist \
    --workdir=runs/keras_example

Published for five epochs of 469 steps, reconstruction / KL / total: 214.57 2.60 217.17;
186.47 3.28 189.75; 181.96 3.42 185.38; 177.52 3.94 181.46; 163.72 5.58 169.30.
Seen, in under a minute on two CPU cores: 216.58 2.44 219.02; 186.28 3.38 189.66;
181.91 3.51 185.42; 174.16 4.51 178.66; 162.15 5.95 168.10.
"""

from ml_collections import ConfigDict

from configs import keras_defaults


def get_config() -> ConfigDict:
    """Model "keras_example": 134,165 parameters."""
    config = keras_defaults.get_config()
    config.data.name = "mnist"
    config.data.path = "data/mnist"
    config.data.image_shape = (28, 28, 1)
    config.model.z_dim = 2
    config.model.norm = "none"
    config.model.activation = "relu"
    config.model.decoder_dense_activation = "relu"
    config.model.encoder.filters = (32, 64)
    config.model.encoder.kernel_sizes = (3, 3)
    config.model.encoder.strides = (2, 2)
    config.model.encoder.padding = ("same", "same")
    config.model.encoder.dense = (16,)
    config.model.decoder.filters = (64, 32)
    config.model.decoder.kernel_sizes = (3, 3, 3)
    config.model.decoder.strides = (2, 2, 1)
    config.model.decoder.padding = ("same", "same", "same")
    config.loss.kl_weight = 1.0
    config.train.epochs = 5
    return config
