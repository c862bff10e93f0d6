"""CelebA at 128x128: a fifth stage, and the KL weight of 96 pixels grown with the pixels.

python -m experiments.prepare_celeba --source=img_align_celeba.zip --out=data/celeba-128 --size=128
python -m experiments.train --config=configs/celeba128.py --workdir=runs/celeba128

9,439,747 parameters. Batches of 128 take 1.3 GiB besides the images, as compiled for a CPU (XLA's
convolutions, as on a GPU: 1.1 GiB); `--config.train.accumulate=4` 0.5 GiB.
Not trained to the end here.
"""

from ml_collections import ConfigDict

from configs import celeba


def get_config() -> ConfigDict:
    """`celeba` with one more stage; KL weight 5 (128 / 96)^2 = 8.9, beta 26.7."""
    config = celeba.get_config()
    config.data.path = "data/celeba-128"
    config.data.image_shape = (128, 128, 3)
    config.model.encoder.filters = (32, 64, 128, 256, 512)
    config.model.decoder.filters = (256, 128, 64, 32)
    for stack in (config.model.encoder, config.model.decoder):
        stack.kernel_sizes = (3,) * 5
        stack.strides = (2,) * 5
        stack.padding = ("same",) * 5
    config.loss.kl_weight = 8.9  # R grows with the pixels: so K keeps its share of the loss.
    return config
