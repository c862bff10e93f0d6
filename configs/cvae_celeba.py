"""A conditional VAE on CelebA at 96x96, told six of its forty attributes.

python -m experiments.prepare_celeba --source=img_align_celeba.zip --out=data/celeba-96 --size=96
python -m experiments.train --config=configs/cvae_celeba.py --workdir=runs/cvae_celeba
python -m experiments.sample --workdir=runs/cvae_celeba --attributes='Smiling=1,Eyeglasses=0'
python -m experiments.conditional --workdir=runs/cvae_celeba

Needs list_attr_celeba.txt beside the images when they are prepared. Not trained here, for want of
that file; configs/cvae_faces.py is the same on procedural faces.
"""

from ml_collections import ConfigDict

from configs import celeba


def get_config() -> ConfigDict:
    """The reference run with a condition."""
    config = celeba.get_config()
    config.data.condition = "attributes"
    config.data.attributes = (
        "Bangs", "Blond_Hair", "Eyeglasses", "Male", "Smiling", "Wearing_Hat",
    )  # fmt: skip
    return config
