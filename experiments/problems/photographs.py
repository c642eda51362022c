"""The two photographs that scikit-learn brings along, in grey."""

import functools

import numpy as np
from sklearn.datasets import load_sample_images


@functools.cache
def grey() -> tuple[np.ndarray, ...]:
    """A temple and a flower, (427, 640) each, in [0, 1]: the mean of the three colours.

    They are JPEG files, which scikit-learn reads by Pillow; Matplotlib needs that, too.
    """
    return tuple(
        np.asarray(image, np.float64).mean(-1) / 255 for image in load_sample_images().images
    )
