"""Converts KL weights between the conventions of other libraries and our own.

Every loss in the table is `loss = r R + w k K` with the same two sums: R, the cross-entropy or the
squared error of one image, summed over H, W and C with pixels in [0, 1]; and K, the KL divergence
of one image in nats, summed over the latent dimensions. Both are averaged over the batch. Libraries
differ in r and k alone, so that beta = w k / r is the number that can be compared.

The formulas were read from the sources at the commits that the table names; those of the Keras
series, a blog without commits, are as this project recorded them when it repeated its runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from vae_jax.losses import term_scales
from vae_jax.types import UserError


@dataclass(frozen=True)
class Setting:
    """What the factors of a convention may depend on.

    Attributes:
        image_shape: `(H, W, C)`.
        z_dim: Z, the number of latent dimensions.
        batch_size: B, images per training step.
        train_count: N, images of the training set.
    """

    image_shape: tuple[int, int, int]
    z_dim: int
    batch_size: int
    train_count: int

    @property
    def values(self) -> int:
        """The number of values of an image, H W C."""
        return math.prod(self.image_shape)


Factor = Callable[[Setting], float]


@dataclass(frozen=True)
class Convention:
    """How one library adds the KL term: `loss = r R + w k K`.

    Attributes:
        name: The name on the command line.
        likelihoods: Those that R may stand for, the library's default first.
        recon: r, the factor of R.
        kl: k, the factor of K at a weight of 1.
        formula: The loss as the library writes it; e is the difference of two pixels, BCE the
            cross-entropy of one pixel, and K_j the KL of one latent dimension.
        source: Repository, file and commit.
        published: The weight in the source; 1 where it has none.
        note: What else a reader of the source should know.
    """

    name: str
    likelihoods: tuple[str, ...]
    recon: Factor
    kl: Factor
    formula: str
    source: str
    published: float = 1.0
    note: str = ""

    def beta(self, weight: float, setting: Setting) -> float:
        """Returns the weight of K against R, both in nats per image, that `weight` means."""
        return weight * self.kl(setting) / self.recon(setting)

    def weight(self, beta: float, setting: Setting) -> float:
        """Returns the weight that means `beta`."""
        return beta * self.recon(setting) / self.kl(setting)


BOTH = ("bernoulli", "squared_error")
CROSS_ENTROPY = ("bernoulli",)
SQUARED_ERROR = ("squared_error",)


def _one(setting: Setting) -> float:
    return 1.0


def _per_channel(setting: Setting) -> float:
    return 1 / setting.image_shape[2]


def _per_value(setting: Setting) -> float:
    return 1 / setting.values


def _per_latent(setting: Setting) -> float:
    return 1 / setting.z_dim


def _ours(reduction: str, formula: str) -> Convention:
    def scales(setting: Setting):
        return term_scales(reduction, 1.0, setting.image_shape, setting.z_dim)

    return Convention(
        reduction,
        BOTH,
        recon=lambda setting: float(scales(setting)[0]),
        kl=lambda setting: float(scales(setting)[1]),
        formula=formula,
        source=f"this project, vae_jax/losses.py, loss.reduction='{reduction}'",
    )


_ANRACOM = "linux-blog.anracom.com, Variational Autoencoder with Tensorflow 2.8"
_BOOK = "fchollet/deep-learning-with-python-notebooks"
_BOOK_COMMIT = "dea84a4e12cc3bb3cb61ce952a0168bca113d315"

CONVENTIONS = {
    convention.name: convention
    for convention in (
        _ours("sum", "R + w K"),
        _ours("channel_mean", "R / C + w K"),
        _ours("mean", "R / (HWC) + (2 w / Z) K"),
        Convention(
            "keras_series_layer",
            BOTH,
            recon=_per_value,
            kl=lambda setting: 2 / setting.z_dim,
            formula="mean_HWC BCE - w mean_Z (1 + log_var - mean^2 - exp(log_var))",
            source=f"{_ANRACOM}, posts V and VII (a blog, without commits)",
            published=6.5e-4,
            note="layer loss, extra outputs and model.add_loss: means everywhere and no 1/2",
        ),
        Convention(
            "keras_series_step",
            BOTH,
            recon=_per_channel,
            kl=_one,
            formula="sum_HW mean_C BCE + w K",
            source=f"{_ANRACOM}, post VIII (a blog, without commits)",
            published=5.0,
            note="the explicit train_step of the same series: sums, but for the channels",
        ),
        Convention(
            "keras_io",
            CROSS_ENTROPY,
            recon=_per_channel,
            kl=_one,
            formula="sum_HW mean_C BCE + w K",
            source="keras-team/keras-io, examples/generative/vae.py, "
            "cca4efba8e0b8514ae3817931696294039b3bfc9",
            note="binary_crossentropy takes the mean over the last axis, the channels",
        ),
        Convention(
            "book_first_edition",
            CROSS_ENTROPY,
            recon=_per_value,
            kl=lambda setting: 2 / setting.z_dim,
            formula="mean_BHWC BCE - w mean_Z (1 + log_var - mean^2 - exp(log_var))",
            source=f"{_BOOK}, first_edition/8.4-generating-images-with-vaes.ipynb, {_BOOK_COMMIT}",
            published=5e-4,
            note="samples with the standard deviation exp(log_var), where its KL has the variance",
        ),
        Convention(
            "book_later_editions",
            CROSS_ENTROPY,
            recon=_per_channel,
            kl=_per_latent,
            formula="sum_HW mean_C BCE + w mean_Z K_j",
            source=f"{_BOOK}, second_edition/chapter12_part04_variational-autoencoders.ipynb and "
            f"chapter17_image-generation.ipynb, {_BOOK_COMMIT}",
            note="the KL has lost the sum over Z that keras.io's example has",
        ),
        Convention(
            "pytorch_vae",
            SQUARED_ERROR,
            recon=_per_value,
            kl=_one,
            formula="mean_BHWC e^2 + w K",
            source="AntixK/PyTorch-VAE, models/vanilla_vae.py, experiment.py and configs/vae.yaml, "
            "a6896b944c918dd7030e7d795a8c13e5c6345ec7",
            published=0.00025,
            note="w is kld_weight (BetaVAE: beta * kld_weight); it validates with w = 1, so its "
            "val_loss, which selects the checkpoint, is another objective",
        ),
        Convention(
            "pytorch_vae_2020",
            SQUARED_ERROR,
            recon=lambda setting: 4 / setting.values,
            kl=lambda setting: setting.batch_size / setting.train_count,
            formula="mean_BHWC (2 e)^2 + w (B / N) K",
            source="AntixK/PyTorch-VAE, models/vanilla_vae.py and experiment.py, "
            "90172be3a00b1d76a6b3741c6fdb5b5f52ccbe4d",
            note="M_N, batch size over data set, is the weight; pixels are in [-1, 1]; N is of "
            "the validation set when it validates",
        ),
        Convention(
            "pythae_mse",
            SQUARED_ERROR,
            recon=lambda setting: 0.5,
            kl=_one,
            formula="1/2 sum_HWC e^2 + w K",
            source="clementchadebec/benchmark_VAE, src/pythae/models/beta_vae/beta_vae_model.py, "
            "6419e21558f2a6abc2da99944bddda846ded30f4",
            note="a Gaussian of variance 1; VAE has w = 1, BetaVAE the weight beta",
        ),
        Convention(
            "pythae_bce",
            CROSS_ENTROPY,
            recon=_one,
            kl=_one,
            formula="sum_HWC BCE + w K",
            source="clementchadebec/benchmark_VAE, src/pythae/models/beta_vae/beta_vae_model.py, "
            "6419e21558f2a6abc2da99944bddda846ded30f4",
        ),
        Convention(
            "flax_example",
            CROSS_ENTROPY,
            recon=_one,
            kl=_one,
            formula="sum_HWC BCE + w K",
            source="google/flax, examples/vae/train.py, 18f8f311c275d57f46d95e41b15aa97b454754c0",
            note="on fixed black-and-white MNIST",
        ),
        Convention(
            "pytorch_example",
            CROSS_ENTROPY,
            recon=lambda setting: float(setting.batch_size),
            kl=lambda setting: float(setting.batch_size),
            formula="sum_BHWC BCE + w sum_B K",
            source="pytorch/examples, vae/main.py, 77f55b912142e11fcfdf5b530231fb9c52f181e8",
            note="also sums over the batch, which changes the step length but not beta",
        ),
        Convention(
            "disentanglement_lib",
            BOTH,
            recon=_one,
            kl=_one,
            formula="sum_HWC BCE + w K, or sum_HWC e^2 + w K",
            source="google-research/disentanglement_lib, disentanglement_lib/methods/shared/"
            "losses.py and unsupervised/vae.py, 86a644d4ed35c771560dc3360756363d35477357",
            note="l2_loss has no 1/2, so that beta = 1 is a variance of 1/2",
        ),
        Convention(
            "diffusers_autoencoder_kl",
            SQUARED_ERROR,
            recon=lambda setting: 4.0,
            kl=_one,
            formula="sum_HWC (2 e)^2 + w K + perceptual and adversarial terms",
            source="huggingface/diffusers, examples/research_projects/autoencoderkl/"
            "train_autoencoderkl.py, 58eb52c0803ea9af3abec60841c2a093bdf1f951",
            published=1e-6,
            note="pixels are in [-1, 1]; Z counts the whole latent grid; the perceptual term is "
            "computed under no_grad, and of the other terms beta says nothing",
        ),
    )
}


def get_convention(name: str) -> Convention:
    """Returns the convention of this name.

    Raises:
        UserError: There is none of this name.
    """
    if name not in CONVENTIONS:
        raise UserError(f"convention {name!r} is unknown; known are {', '.join(CONVENTIONS)}")
    return CONVENTIONS[name]


def gaussian_variance(beta: float) -> float:
    """Returns the variance of a Gaussian decoder that `beta` on the summed squared error implies.

    e^2 + beta K and e^2 / (2 variance) + K have the same gradient but for a factor when the
    variance is beta / 2. In squared pixels of [0, 1].
    """
    return beta / 2


def config_lines(beta: float, likelihood: str) -> tuple[str, ...]:
    """Returns the lines of a config of this project with `beta` on the given likelihood.

    Args:
        beta: The weight of K against R, both in nats per image.
        likelihood: 'bernoulli', 'squared_error', or 'gaussian' for the same objective as
            'squared_error' with a weight of 1, whose loss bounds a log-density.
    """
    weight = beta
    sigma: tuple[str, ...] = ()
    if likelihood == "gaussian":
        weight = 1.0
        sigma = (f"config.loss.sigma = {math.sqrt(gaussian_variance(beta)):.6g}",)
    return (
        f'config.loss.likelihood = "{likelihood}"',
        *sigma,
        'config.loss.reduction = "sum"',
        f"config.loss.kl_weight = {weight:.6g}",
    )


def describe(convention: Convention, weight: float, likelihood: str, setting: Setting) -> str:
    """Returns a weight in the units of every convention, as lines of text.

    Args:
        convention: The convention of the weight.
        weight: The weight.
        likelihood: One of the likelihoods of the convention.
        setting: The sizes of images, latent space, batch and data set.
    """
    beta = convention.beta(weight, setting)
    height, width, channels = setting.image_shape
    lines = [
        f"w = {weight:g} of {convention.name} at {height}x{width}x{channels}, "
        f"Z = {setting.z_dim}, likelihood {likelihood}",
        f"  loss     {convention.formula}",
        f"  source   {convention.source}",
    ]
    if convention.note:
        lines.append(f"  note     {convention.note}")
    lines += ["", f"beta = {beta:.6g}, the weight of K against R, both summed"]
    configs = {"In a config here:": likelihood}
    if likelihood == "squared_error" and beta > 0:
        variance = gaussian_variance(beta)
        lines.append(
            f"  a Gaussian decoder of variance beta / 2 = {variance:.6g} "
            f"(standard deviation {math.sqrt(variance):.4g} of pixels in [0, 1])"
        )
        configs["or, as a log-density:"] = "gaussian"

    def table(rows: Iterable[Convention]) -> list[str]:
        return [f"  {row.name:26}{row.weight(beta, setting):<14.6g}{row.formula}" for row in rows]

    rows = CONVENTIONS.values()
    lines += ["", "The same objective elsewhere:"]
    lines += table(row for row in rows if likelihood in row.likelihoods)
    lines += ["", "The same beta, but R is another likelihood, so not the same objective:"]
    lines += table(row for row in rows if likelihood not in row.likelihoods)
    for title, name in configs.items():
        lines += ["", title, *(f"  {line}" for line in config_lines(beta, name))]
    return "\n".join(lines)
