"""Moving digits: scikit-learn's handwritten digits that fly through a frame and bounce."""

import importlib

import torch

from paro.config.errors import ParoError

#: Frames, height and width of a video in pixels.
FRAMES, HEIGHT, WIDTH = 8, 16, 16
#: Pixels on a side of a digit.
DIGIT = 8
#: Number of classes: the digits 0 to 9.
CLASSES = 10
#: Fastest motion along an axis, in pixels per frame.
SPEED_MAX = 2


class MovingDigits:
    """Endless videos of one digit each, drawn from a seed.

    Parameters
    ----------
    seed : int
        Of everything random in it.

    Raises
    ------
    ParoError
        If scikit-learn, which holds the digits, is not installed.
    """

    def __init__(self, seed: int) -> None:
        try:
            datasets = importlib.import_module("sklearn.datasets")
        except ImportError as error:
            raise ParoError(
                "scikit-learn is not installed, and training draws its digits from it; "
                "install the extra: pip install 'paro-accelerator[train]'"
            ) from error
        digits = datasets.load_digits()
        self._images = torch.tensor(digits.images, dtype=torch.float32) / 8 - 1
        self._classes = torch.tensor(digits.target, dtype=torch.int64)
        self._random = torch.Generator().manual_seed(seed)

    def batch(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw some videos.

        Returns
        -------
        videos : torch.Tensor
            float32 [size, FRAMES, HEIGHT, WIDTH], -1 (black) .. 1.
        classes : torch.Tensor
            int64 [size], 0 .. 9.
        """
        chosen = torch.randint(len(self._images), (size,), generator=self._random)
        top = self._path(size, HEIGHT - DIGIT)
        left = self._path(size, WIDTH - DIGIT)
        videos = torch.full((size, FRAMES, HEIGHT, WIDTH), -1.0)
        inside = torch.arange(DIGIT)
        rows = (top.unsqueeze(2) + inside).unsqueeze(3)
        columns = (left.unsqueeze(2) + inside).unsqueeze(2)
        sample = torch.arange(size).view(-1, 1, 1, 1)
        frame = torch.arange(FRAMES).view(1, -1, 1, 1)
        videos[sample, frame, rows, columns] = self._images[chosen].unsqueeze(1)
        return videos, self._classes[chosen]

    def _path(self, size: int, room: int) -> torch.Tensor:
        """Positions 0 .. room along one axis, int64 [size, FRAMES], reflected at both ends."""
        start = torch.randint(room + 1, (size, 1), generator=self._random)
        speed = torch.randint(-SPEED_MAX, SPEED_MAX + 1, (size, 1), generator=self._random)
        way = (start + speed * torch.arange(FRAMES)) % (2 * room)
        return room - (way - room).abs()
