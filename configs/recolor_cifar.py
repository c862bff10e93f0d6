"""Recolouring of CIFAR-10: the input is grey (3 equal channels), the target in colour.

python -m experiments.train --config=configs/recolor_cifar.py \
    --config.data.path=data/cifar-10-batches-bin --workdir=runs/recolor_cifar
python -m experiments.restore --workdir=runs/recolor_cifar

Not trained here; configs/recolor_faces.py is the same on procedural faces. The data are the six
files of cifar-10-binary.tar.gz, https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """An autoencoder (KL weight 0) with Z = 512, trained on mirrored images too."""
    config = default.get_config()
    config.data.name = "cifar10"
    config.data.path = "data/cifar-10-batches-bin"
    config.data.image_shape = (32, 32, 3)
    config.data.validation_count = 5000  # a tenth of the training images
    config.data.corruption.grey = True
    config.data.augmentation.flip = True
    config.model.z_dim = 512
    config.model.encoder.filters = (64, 128, 256)
    config.model.encoder.kernel_sizes = (3, 3, 3)
    config.model.encoder.strides = (1, 2, 2)
    config.model.encoder.padding = ("same", "same", "same")
    config.model.decoder.filters = (128, 64)
    config.model.decoder.kernel_sizes = (3, 3, 3)
    config.model.decoder.strides = (2, 2, 1)
    config.model.decoder.padding = ("same", "same", "same")
    config.loss.kl_weight = 0.0
    config.train.epochs = 20
    return config
