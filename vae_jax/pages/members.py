"""Pictures of the members of a sweep."""

from __future__ import annotations

from vae_jax.evaluate.member_metrics import MemberPictures
from vae_jax.report.pictures import image_grid, paired_rows, save_png
from vae_jax.run import Run

COLUMNS = 4


def draw_member(run: Run, pictures: MemberPictures) -> dict[str, str]:
    """Write a member's samples.png and reconstructions.png.

    Args:
        run: the member.
        pictures: its samples and reconstructions.

    Returns:
        The names of the files by kind.
    """
    pairs = paired_rows([pictures.originals, pictures.reconstructions], COLUMNS)
    facts = {
        "samples": {"seed": str(pictures.seed)},
        "reconstructions": {"rows": "original, reconstruction of the mean"},
    }
    for kind, pixels in (("samples", pictures.samples), ("reconstructions", pairs)):
        path = run.workdir / f"{kind}.png"
        save_png(path, image_grid(pixels, COLUMNS), run.provenance | facts[kind])
    return {kind: f"{kind}.png" for kind in facts}
