"""Keras' own defaults, which every reference config starts from.

Not a study of its own. Keras and Flax/optax differ in the slope of LeakyReLU, in the epsilon and
momentum of batch norm, in Adam's epsilon and in the initialiser; and a Keras model is evaluated
with its running statistics.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """`default` with the values that Keras uses."""
    config = default.get_config()
    config.model.negative_slope = 0.3
    config.model.norm_epsilon = 1e-3
    config.model.norm_momentum = 0.99
    config.model.kernel_init = "glorot_uniform"
    config.model.conv_bias = True
    config.optimizer.epsilon = 1e-7
    config.eval.batch_stats = "running"
    return config
