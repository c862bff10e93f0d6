"""Every field with its unit and default. The other configs list only what differs.

python -m experiments.train --config=configs/default.py --workdir=runs/default

Seen after 7 of 10 epochs, a minute and a half on two CPU cores: test loss 2,551 (KL 11.6 nats).
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The default configuration: a VAE on procedural faces of 64x64 pixels."""
    config = ConfigDict()
    # One seed for initialisation, order of the images, latent noise, dropout and corruption.
    config.seed = 0

    config.data = ConfigDict()
    config.data.name = "faces"  # faces | celeba | mnist | cifar10 | folder
    # faces: where they are made; celeba and folder: a prepared store, or a source that is
    # prepared into PATH-SIZE beside it; mnist: folder with the four IDX files; cifar10: folder
    # with the six files of the binary version.
    config.data.path = "data/faces"
    config.data.digest = ""  # SHA-256 of the images, which a run fills in; it refuses any others
    config.data.image_shape = (64, 64, 3)  # H, W, C
    config.data.generate_count = 8000  # faces only: how many to draw, all splits together
    config.data.generate_seed = 0  # faces only
    config.data.train_count = 0  # images; 0 takes the whole split
    # Images that epochs and models are chosen by: of the validation split, which faces and CelebA
    # have; otherwise held out of the training images, the same ones for every run. 0 takes the
    # whole validation split, or holds none out: then the newest checkpoint is the one that stays.
    config.data.validation_count = 0
    config.data.test_count = 0  # images to report on; 0 takes the whole split
    config.data.condition = "none"  # none | class | attributes: what the model is told
    config.data.attributes = ()  # names, for condition 'attributes'
    # How the input is corrupted, in this order; the model has to return the clean image.
    config.data.corruption = ConfigDict()
    config.data.corruption.grey = False  # luminance, in 3 equal channels
    config.data.corruption.gaussian_sigma = 0.0  # in [0, 1] pixel units; clipped to [0, 1]
    config.data.corruption.drop_fraction = 0.0  # share of pixels that are lost
    config.data.corruption.drop_value = "black"  # black | noise: what lost pixels become
    config.data.corruption.mask = "none"  # none | rectangle | left | right | top | bottom: erased
    config.data.corruption.mask_size = 0  # pixels: side of the 'rectangle', anywhere in the image
    # How training images are varied, input and target alike; nothing is varied in evaluation.
    config.data.augmentation = ConfigDict()
    config.data.augmentation.flip = False  # mirror half of the images left to right
    config.data.augmentation.shift = 0  # pixels along each axis at most
    config.data.augmentation.brightness = 0.0  # b of a factor in [1 - b, 1 + b]
    # Grey images to black and white, by the Bernoulli law of each pixel's grey level: none |
    # stochastic (anew in every step) | fixed (once for every image, by data.generate_seed).
    config.data.binarize = "none"
    config.data.resident = "auto"  # auto | always | never: the split as uint8 on the device
    config.data.resident_gib = 6.0  # GiB a split may take on the device under 'auto'

    config.model = ConfigDict()
    config.model.z_dim = 64
    config.model.encoder = ConfigDict()
    config.model.encoder.filters = (32, 64, 128, 256)
    config.model.encoder.kernel_sizes = (3, 3, 3, 3)
    config.model.encoder.strides = (2, 2, 2, 2)
    config.model.encoder.padding = ("same", "same", "same", "same")  # same | valid
    config.model.encoder.dense = ()  # widths between the features and mean / log_var
    config.model.decoder = ConfigDict()
    config.model.decoder.filters = (128, 64, 32)  # without the last layer: the image's channels
    config.model.decoder.kernel_sizes = (3, 3, 3, 3)
    config.model.decoder.strides = (2, 2, 2, 2)
    config.model.decoder.padding = ("same", "same", "same", "same")
    config.model.decoder_dense_activation = "none"  # none | leaky_relu | relu | selu | tanh
    config.model.activation = "leaky_relu"  # leaky_relu | relu | selu | tanh | none
    config.model.negative_slope = 0.2  # slope of leaky_relu below 0
    config.model.norm = "batch"  # batch | none
    config.model.norm_epsilon = 1e-3
    config.model.norm_momentum = 0.9
    config.model.dropout = 0.0  # rate; alpha dropout with selu
    config.model.kernel_init = "glorot_uniform"  # glorot_uniform | he_normal | lecun_normal
    config.model.conv_bias = False  # in front of a norm, where its true gradient is 0
    config.model.dtype = "float32"  # float32 | bfloat16: compute; parameters stay float32
    config.model.convolution = "auto"  # auto | xla | matmul
    # Recompute each layer in the backward pass; XLA undoes it on a CPU, where it saves nothing.
    config.model.remat = False
    # False: a plain autoencoder, z is the mean in training and evaluation. Set loss.kl_weight to 0
    # with it: nothing is then asked of log_var, and no bound is logged.
    config.model.sample = True

    # The optional section `told` makes one model for many KL weights and latent sizes; see
    # configs/plane_mnist.py. The optional section `sweep` trains many models; see
    # configs/ablation_faces.py.

    config.loss = ConfigDict()
    config.loss.likelihood = "bernoulli"  # bernoulli | squared_error | gaussian | optimal_sigma
    # How kl_weight w is meant; R and K are sums in nats per image:
    #   sum R + w K | channel_mean R/C + w K | mean R/(HWC) + (2 w/Z) K
    # With 'mean', changing z_dim at fixed w silently changes beta; beta is always logged.
    config.loss.reduction = "channel_mean"
    config.loss.kl_weight = 3.0
    # Nats per image: a controller moves the weight, from kl_weight on, until K is this; 0 is off.
    config.loss.target_rate = 0.0
    config.loss.kl_schedule = "constant"  # constant | linear | cyclical
    config.loss.kl_schedule_steps = 1000  # steps of the warm-up, or of all cycles together
    config.loss.kl_cycles = 4  # number of cycles of 'cyclical'
    config.loss.kl_cycle_ramp = 0.5  # share of a cycle that rises
    config.loss.free_bits = 0.0  # nats per latent dimension; 0 is off
    config.loss.sigma = 0.1  # standard deviation of 'gaussian', in [0, 1] pixel units

    config.optimizer = ConfigDict()
    config.optimizer.learning_rate = 1e-3
    config.optimizer.b1 = 0.9
    config.optimizer.b2 = 0.999
    config.optimizer.epsilon = 1e-8
    config.optimizer.schedule = "constant"  # constant | cosine
    # Where the cosine reaches 0; 0 takes train.epochs of the run's first start. A run that is
    # trained on keeps its cosine, unless another number here says to stretch it.
    config.optimizer.schedule_epochs = 0
    config.optimizer.warmup_steps = 0  # steps of a linear warm-up from 0
    config.optimizer.clip_norm = 0.0  # global gradient norm; 0 is off

    config.train = ConfigDict()
    config.train.batch_size = 128
    config.train.epochs = 10
    # Micro-batches that a batch is cut into, to save memory. Without norm, dropout, free bits and
    # 'optimal_sigma' the result is that of the whole batch; with them they see a micro-batch. The
    # running statistics of a norm move once for the whole batch.
    config.train.accumulate = 1
    config.train.order_seed = -1  # seed of the order of the images; -1 takes config.seed
    config.train.max_skipped = 10  # non-finite steps in a row that stop the run

    # Numbers of devices; they change speed, and results by rounding alone.
    config.parallel = ConfigDict()
    config.parallel.data = 0  # devices that divide every batch; 0 for as many as possible
    config.parallel.members = 0  # devices that divide the members of a group; 0 for all

    config.eval = ConfigDict()
    config.eval.batch_size = 256
    config.eval.every_epochs = 1
    # reestimated | running: batch statistics measured anew on `statistics_batches` training
    # batches, since running averages lag behind the weights; or the running ones, as in Keras.
    config.eval.batch_stats = "reestimated"
    config.eval.statistics_batches = 16
    config.eval.pictures = 64  # images in samples.png

    config.checkpoint = ConfigDict()
    config.checkpoint.every_epochs = 1
    config.checkpoint.keep_latest = 2
    config.checkpoint.keep_best = 1  # by validation loss; without a validation split, none

    config.log = ConfigDict()
    config.log.tensorboard = False  # needs the extra `tensorboard`
    return config
