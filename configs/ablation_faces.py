"""How KL weight and latent size move reconstructions and samples, on procedural faces.

python -m experiments.ablation --config=configs/ablation_faces.py --workdir=runs/ablation_faces

48 models of 32x32 faces: six KL weights (beta 0 to 45) at four latent sizes and two seeds, each
with its own order of the images. Ends with runs/ablation_faces/ablation/index.html. Two seeds
give a first look; differences between models are resolved with five or more, and more values train
only what is new: --config.sweep.seed='(0, 1, 2, 3, 4)'.

Seen with five seeds, Z = 16, 64 and 200 and weights up to 5 (75 models, half an hour with their
measurement on two slow CPU cores): samples of N(0, I) are best at Z = 16 and weight 0.5 (sliced
Wasserstein distance 0.0495 +- 0.0036, real to real 0.018), reconstructions at Z = 200 without KL
(25.6 dB), and so are samples of a fitted Gaussian.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """A small model, so that the whole grid takes minutes on two CPU cores."""
    config = default.get_config()
    config.data.image_shape = (32, 32, 3)
    config.model.encoder.filters = (24, 48, 96)
    config.model.encoder.kernel_sizes = (3, 3, 3)
    config.model.encoder.strides = (2, 2, 2)
    config.model.encoder.padding = ("same", "same", "same")
    config.model.decoder.filters = (48, 24)
    config.model.decoder.kernel_sizes = (3, 3, 3)
    config.model.decoder.strides = (2, 2, 2)
    config.model.decoder.padding = ("same", "same", "same")
    config.optimizer.learning_rate = 1.5e-3
    config.optimizer.schedule = "cosine"
    config.train.batch_size = 64
    config.train.epochs = 6
    config.checkpoint.every_epochs = 3
    config.sweep = ConfigDict()
    config.sweep.kl_weight = (0.0, 0.1, 0.5, 1.5, 5.0, 15.0)  # empty: that of config.loss
    config.sweep.z_dim = (2, 16, 64, 200)  # empty: that of config.model
    config.sweep.learning_rate = ()  # empty: that of config.optimizer
    config.sweep.seed = (0, 1)  # empty: config.seed
    config.sweep.mode = "grid"  # grid: all combinations | list: the i-th values of all fields
    # in_turn | together: in one program, padded to the largest z_dim | mixed: together if z_dim is
    # equal | auto: in_turn on a CPU, together elsewhere
    config.sweep.schedule = "auto"
    # Seeds differ in everything: initialisation, latent noise, order of the images. True: all see
    # the images in the order of config.seed, so that seeds differ by less than new runs would.
    config.sweep.same_batches = False
    config.sweep.memory_gib = 0.0  # GiB for a group; 0 for a share of what the device has
    return config
