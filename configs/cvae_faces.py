"""A conditional VAE on procedural faces, told six of their attributes.

python -m experiments.train --config=configs/cvae_faces.py --workdir=runs/cvae_faces
python -m experiments.sample --workdir=runs/cvae_faces --attributes='Eyeglasses=1,Smiling=1'
python -m experiments.conditional --workdir=runs/cvae_faces --classifier=runs/classifier_faces

Seen after two minutes on two cores, share recognised when asked for / when not: Eyeglasses
100 / 6 %, Beard 99 / 7 %, Long_Hair 74 / 19 %, Wearing_Hat 73 / 6 %, Smiling 63 / 55 %, Blond_Hair
46 / 8 %: with this small KL weight z goes on telling what the condition tells already.
"""

from ml_collections import ConfigDict

from configs import faces


def get_config() -> ConfigDict:
    """The model of `configs/faces.py` with a condition."""
    config = faces.get_config()
    config.data.condition = "attributes"
    config.data.attributes = (
        "Beard", "Blond_Hair", "Eyeglasses", "Long_Hair", "Smiling", "Wearing_Hat",
    )  # fmt: skip
    return config
