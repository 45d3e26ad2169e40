"""What every network is given: normalised images."""

import pytest
import torch

from ultron_cli.models.backbones.preprocessing import Preprocessing
from ultron_cli.models.core import normalise_images


@pytest.mark.parametrize("shape", [(2, 5, 7, 3), (1, 1, 1, 3), (0, 4, 4, 3)])
@pytest.mark.parametrize("is_last", [True, False])
def test_images_are_normalised_to_the_bit_colour_by_colour(shape: tuple[int, ...], is_last: bool) -> None:
    preprocessing = Preprocessing(mean=(0.485, 0.456, 0.406), sd=(0.229, 0.224, 0.225))
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    if not is_last:
        pixels = pixels.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    images = normalise_images(pixels, preprocessing)
    assert images.shape == (shape[0], 3, *shape[1:3]) and images.is_contiguous(memory_format=torch.channels_last)
    for channel, (mean, sd) in enumerate(zip(preprocessing.mean, preprocessing.sd, strict=True)):
        mean_255, sd_255 = torch.tensor(mean) * 255.0, torch.tensor(sd) * 255.0
        assert torch.equal(images[:, channel], (pixels[..., channel].float() - mean_255) / sd_255)
