"""CelebA at 256x256: six stages, in micro-batches that recompute their activations.

python -m experiments.prepare_celeba --source=img_align_celeba.zip --out=data/celeba-256 --size=256
python -m experiments.train --config=configs/celeba256.py --workdir=runs/celeba256

The official images have 178x218 pixels, so this enlarges them; CelebA-HQ as `--source` does not.
14,161,411 parameters. Batches of 128 in 4 micro-batches take 1.6 GiB besides the images, as
compiled for a CPU (XLA's convolutions, as on a GPU: 1.4 GiB); 5.0 GiB without
micro-batches, 1.0 with 8. Not trained to the end here.
"""

from ml_collections import ConfigDict

from configs import celeba


def get_config() -> ConfigDict:
    """`celeba` with two more stages; KL weight 5 (256 / 96)^2 = 35.6, beta 106.8."""
    config = celeba.get_config()
    config.data.path = "data/celeba-256"
    config.data.image_shape = (256, 256, 3)
    config.model.encoder.filters = (32, 64, 128, 256, 512, 512)
    config.model.decoder.filters = (512, 256, 128, 64, 32)
    for stack in (config.model.encoder, config.model.decoder):
        stack.kernel_sizes = (3,) * 6
        stack.strides = (2,) * 6
        stack.padding = ("same",) * 6
    config.model.remat = True
    config.loss.kl_weight = 35.6  # R grows with the pixels: so K keeps its share of the loss.
    config.train.accumulate = 4  # batch norm sees 32 images
    config.eval.batch_size = 64
    return config
