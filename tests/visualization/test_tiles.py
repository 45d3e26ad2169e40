"""Photos as tiles."""

from tests.visualization.photos import plain
from ultron_cli.visualization import tiles


def test_box_is_clipped_to_the_photo() -> None:
    tile = tiles.load_tile(plain(5, 200, 100), 100, 100)
    assert tile.pixels.shape == (50, 100, 3)
    assert tiles.box_on_tile(tile, (-10, 20, 500, 60)) == (0, 10, 100, 30)
    assert tiles.box_on_tile(tile, (900, 900, 901, 901)) == (99, 49, 100, 50)
    tiles.with_box(tile, (900.0, 900.0, 901.0, 901.0))
