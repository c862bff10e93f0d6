"""A small CNN that recognises attributes of the procedural faces, independently of each other.

python -m experiments.train_classifier --config=configs/classifier_faces.py \
    --workdir=runs/classifier_faces
"""

from ml_collections import ConfigDict

from configs import classifier_mnist, default


def get_config() -> ConfigDict:
    """Four strided convolutions; the attributes are those that a look at the picture decides."""
    config = classifier_mnist.get_config()
    config.data = default.get_config().data
    config.data.condition = "attributes"
    config.data.attributes = (
        "Bald",
        "Bangs",
        "Beard",
        "Black_Hair",
        "Blond_Hair",
        "Brown_Hair",
        "Eyeglasses",
        "Gray_Hair",
        "Long_Hair",
        "Mouth_Slightly_Open",
        "Smiling",
        "Wearing_Hat",
    )
    config.classifier.filters = (32, 64, 128, 128)
    config.classifier.kernel_sizes = (3, 3, 3, 3)
    config.classifier.strides = (2, 2, 2, 2)
    config.classifier.padding = ("same", "same", "same", "same")
    config.classifier.norm = "batch"  # Without it the smile is never found.
    config.train.batch_size = 64
    config.train.epochs = 12
    return config
