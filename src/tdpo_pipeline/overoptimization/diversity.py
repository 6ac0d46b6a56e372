"""How different the images of one prompt are from each other, on fixed noise.

A fine-tuned model that draws one picture again and again may score well on every
reward. Two measures of embeddings show it, both of the images of one prompt, whose
noise is the same at every checkpoint:

- the mean pairwise distance, 1 minus the cosine, over all pairs of images;
- the Vendi score (Friedman and Dieng 2023, "The Vendi Score: A Diversity Evaluation
  Metric for Machine Learning", equation 1): the exponential of the entropy of the
  eigenvalues of K / n, where K holds the cosines. It is the effective number of
  different images: 1 if all n are equal, n if all are orthogonal.

The embeddings have to come from an encoder that was not trained on, and are compared
only with embeddings of the same one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

FloatArray = npt.NDArray[np.floating]

MEASURES = ("pairwise_distance", "vendi_score")
"""Columns that ``diversity_by_prompt`` adds."""

_UNIT_NORM = 1e-3


def mean_pairwise_distance(embeddings: FloatArray) -> float:
    """Mean of 1 - cosine over the pairs of n embeddings.

    Of unit vectors the pairs needn't be visited: |sum e_i|^2 = n + 2 sum_{i<j} cos_ij.

    Args:
        embeddings: L2-normalised, shape (n, d).

    Returns:
        In [0, 2]; 0 if all are equal, 1 if all are orthogonal, NaN for fewer than two.

    Raises:
        ValueError: If the embeddings are not finite and of length 1.
    """
    unit = _checked(embeddings)
    n = len(unit)
    if n < 2:
        return float("nan")
    total = float(np.square(unit.sum(axis=0)).sum())
    return 1 - (total - n) / (n * (n - 1))


def vendi_score(embeddings: FloatArray) -> float:
    """Effective number of different images among n: exp of an entropy.

    Args:
        embeddings: L2-normalised, shape (n, d), n at least 1.

    Returns:
        In [1, n], with the cosine as kernel.

    Raises:
        ValueError: If there are none, or they are not finite and of length 1.
    """
    unit = _checked(embeddings)
    n, dim = unit.shape
    # Both products have the same eigenvalues but for zeros; take the smaller one.
    kernel = (unit @ unit.T if n <= dim else unit.T @ unit) / n
    eigenvalues = np.linalg.eigvalsh(kernel)
    positive = eigenvalues[eigenvalues > 0]
    return float(np.exp(-(positive * np.log(positive)).sum()))


def _checked(embeddings: FloatArray) -> npt.NDArray[np.float64]:
    """The embeddings in float64, renormalised of what single precision lost."""
    if embeddings.ndim != 2 or len(embeddings) == 0:
        raise ValueError(
            f"Diversity is of embeddings (n, d), n at least 1; got {embeddings.shape}."
        )
    wide = embeddings.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    if not (np.abs(lengths - 1) < _UNIT_NORM).all():
        raise ValueError(
            "Diversity is of L2-normalised embeddings; their lengths are from "
            f"{lengths.min():.4g} to {lengths.max():.4g}."
        )
    return wide / lengths


def diversity_by_prompt(
    images: pd.DataFrame, embeddings: FloatArray, keys: Sequence[str]
) -> pd.DataFrame:
    """Both measures of each prompt's images.

    Args:
        images: A row an image, with the columns ``keys``.
        embeddings: L2-normalised, shape (rows of ``images``, d).
        keys: What images have to share to be compared, such as the prompt.

    Returns:
        A row for each value of ``keys``, in order of first appearance: ``keys``,
        ``image`` (0: the row is of all images, and has the shape of a score table),
        n_images, pairwise_distance (NaN of a single image) and vendi_score.
    """
    rows = []
    groups = images.reset_index(drop=True).groupby(list(keys), sort=False)
    for values, group in groups:
        own = embeddings[group.index]
        measured = (mean_pairwise_distance(own), vendi_score(own))
        head = dict(zip(keys, values, strict=True)) | {"image": 0, "n_images": len(own)}
        rows.append(head | dict(zip(MEASURES, measured, strict=True)))
    return pd.DataFrame(rows, columns=[*keys, "image", "n_images", *MEASURES])
