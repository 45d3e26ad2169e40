"""test_swin: a Swin (Liu et al., ICCV 2021) small enough to learn on a laptop, as timm's test_resnet and test_vit are;
timm has none."""

from timm.models.swin_transformer import SwinTransformer

NAME = "test_swin"
MEAN, SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def make_small_swin() -> SwinTransformer:
    """A fresh network for photos of any size, 1.4 M parameters: patches of 4 px, 32 to 256 channels in five blocks,
    windows of 4 x 4 places."""
    network = SwinTransformer(
        img_size=224,
        strict_img_size=False,
        window_size=4,
        embed_dim=32,
        depths=(1, 1, 2, 1),
        num_heads=(1, 2, 4, 8),
        num_classes=0,
        drop_path_rate=0.0,
    )
    network.pretrained_cfg = {
        "mean": MEAN,
        "std": SD,
        "interpolation": "bicubic",
        "classifier": "head.fc",
        "first_conv": "patch_embed.proj",
    }
    return network
