"""The known datasets: their parts, addresses, sizes and checksums, each figure with its source.

Addresses are those of the publishers' own scripts and pages. A checksum stands here only where the publisher gives one:
as a file next to the data (`checksum_address`), read at download time. Where there is none the checksum is None, and
install.py records what the first download had. Sizes are approximate unless they are in `n_bytes`; they serve to tell
the disk space beforehand.

Another dataset is a file like holidays.py, with its KnownSet and the step that makes the publisher's labels readable,
and a line in KNOWN_SETS.
"""

from dataclasses import replace

from ultron_cli.datasets.download import layouts
from ultron_cli.datasets.download.holidays import HOLIDAYS
from ultron_cli.datasets.download.known_set import KnownSet, Part
from ultron_cli.errors import UltronError, nearest_names

REVISITOP = "github.com/filipradenovic/revisitop (python/download.py, commit be39832)"
CIRTORCH = "github.com/filipradenovic/cnnimageretrieval-pytorch (cirtorch/utils/download.py, commit 1e66a41)"
GLDV2 = "github.com/cvdfoundation/google-landmark (README.md and download-dataset.sh, commit 183f68a)"
ILIAS = "github.com/ilias-vrg/ilias (download/, commit e81029e)"
RGLDV2 = "github.com/dealicious-inc/RGLDv2-clean (README.md, commit 2dc8650)"
DOLG = "github.com/feymanpriv/DOLG (revisitop/features/, commit 63b117d)"
OS2D = "github.com/aosokin/os2d (README.md and os2d/data/dataset.py); a user of the set, not its publisher"
MEASURED = "Content-Length that other people's download scripts note; not the publisher's figure"

VGG = "https://www.robots.ox.ac.uk/~vgg/data"
REVISITOP_SERVER = "http://cmp.felk.cvut.cz/revisitop/data/datasets"
DISTRACTOR_SERVER = "http://ptak.felk.cvut.cz/revisitop/revisitop1m"
SFM_SERVER = "http://cmp.felk.cvut.cz/cnnimageretrieval/data/train"
GLDV2_SERVER = "https://s3.amazonaws.com/google-landmark"
ILIAS_SERVER = "https://vrg.fel.cvut.cz/ilias_data"
REVISITOP_FEATURES = "http://cmp.felk.cvut.cz/revisitop/data/features"
DOLG_FEATURES = (
    "https://raw.githubusercontent.com/feymanpriv/DOLG/63b117d76f660db9617c2081ec771e3cbdf4bcc8/revisitop/features"
)
INSTRE_SERVER = "ftp://ftp.irisa.fr/local/texmex/corpus/instre"

FLICKR = "photos under Flickr's terms, for research (VGG's terms of access); ground truth by the authors of revisitop"
GB = 10**9


def find_set(name: str) -> KnownSet:
    """A known dataset by name. Raises UltronError, naming the nearest."""
    if name not in KNOWN_SETS:
        raise UltronError(f"unknown dataset {name!r}{nearest_names(name, KNOWN_SETS)} (known: {', '.join(KNOWN_SETS)})")
    return KNOWN_SETS[name]


def _revisited(name: str) -> str:
    return f"{REVISITOP_SERVER}/{name}/gnd_{name}.pkl"


ROXFORD5K = KnownSet(
    name="roxford5k",
    purpose="evaluation: Revisited Oxford, easy/medium/hard",
    photos="4,993 photos, 70 queries",
    licence=FLICKR,
    n_database=4993,
    n_queries=70,
    versions=("blurred", "original"),
    sources=(REVISITOP, f"sizes: {MEASURED}"),
    parts=(
        Part(
            file="oxbuild_images-v1.tgz",
            addresses=(f"{VGG}/oxbuildings/oxbuild_images-v1.tgz",),
            kind="photos",
            into="jpg",
            flat=True,
            about_bytes=1_938_238_004,
            version="blurred",
        ),
        # VGG's page no longer links the photos as they were before June 2022; the address is the one its page had.
        Part(
            file="oxbuild_images.tgz",
            addresses=(f"{VGG}/oxbuildings/oxbuild_images.tgz",),
            kind="photos",
            into="jpg",
            flat=True,
            about_bytes=1_980_280_437,
            version="original",
        ),
        Part(
            file="gnd_roxford5k.pkl",
            addresses=(_revisited("roxford5k"),),
            about_bytes=149_871,
            known_sha256="ba7967754bd2d7d2210a5799f9c45ad5835e269a80ef9d3eba44caa35816c471",
        ),
    ),
)

RPARIS6K = KnownSet(
    name="rparis6k",
    purpose="evaluation: Revisited Paris, easy/medium/hard",
    photos="6,322 photos, 70 queries",
    licence=FLICKR,
    n_database=6322,
    n_queries=70,
    versions=("blurred", "original"),
    sources=(REVISITOP,),
    parts=(
        *(
            Part(
                file=f"paris_{i}{suffix}.tgz",
                addresses=(f"{VGG}/parisbuildings/paris_{i}{suffix}.tgz",),
                kind="photos",
                into="jpg",
                flat=True,
                version=version,
            )
            for version, suffix in (("blurred", "-v1"), ("original", ""))
            for i in (1, 2)
        ),
        Part(
            file="gnd_rparis6k.pkl",
            addresses=(_revisited("rparis6k"),),
            about_bytes=276_508,
            known_sha256="d2e729a5293dda7dda8a15c8383424a42e4964a2c4cfea2f32fa85d11d2df499",
        ),
    ),
)

REVISITOP1M = KnownSet(
    name="revisitop1m",
    purpose="evaluation: a million distractors for roxford5k and rparis6k",
    photos="1,001,001 photos",
    licence="photos under Flickr's terms, for research",
    sources=(REVISITOP,),
    parts=(
        *(
            Part(
                file=f"revisitop1m.{i}.tar.gz",
                addresses=(f"{DISTRACTOR_SERVER}/jpg/revisitop1m.{i}.tar.gz",),
                kind="photos",
                into="jpg",
            )
            for i in range(1, 101)
        ),
        Part(file="revisitop1m.txt", addresses=(f"{DISTRACTOR_SERVER}/revisitop1m.txt",)),
    ),
)


def _gldv2_archives(split: str, n_archives: int, about_bytes: int) -> tuple[Part, ...]:
    """The archives of a split; each has an MD5 file beside it."""
    return tuple(
        Part(
            file=f"images_{i:03d}.tar",
            addresses=(f"{GLDV2_SERVER}/{split}/images_{i:03d}.tar",),
            kind="photos",
            into=split,
            about_bytes=about_bytes,
            checksum_address=f"{GLDV2_SERVER}/md5sum/{split}/md5.images_{i:03d}.txt",
        )
        for i in range(n_archives)
    )


def _gldv2_tables(*paths: str) -> tuple[Part, ...]:
    return tuple(Part(file=path.rsplit("/", 1)[1], addresses=(f"{GLDV2_SERVER}/{path}",)) for path in paths)


GLDV2_TRAIN = KnownSet(
    name="gldv2-train",
    purpose="training: Google Landmarks v2, all of it (noisy)",
    photos="4,132,914 photos",
    licence="CC BY, without ND",
    sources=(GLDV2, "sizes: ~1 GB per archive (its README)"),
    finish=layouts.gldv2_train,
    parts=(
        *_gldv2_archives("train", 500, GB),
        *_gldv2_tables("metadata/train.csv", "metadata/train_label_to_category.csv"),
    ),
)

GLDV2_INDEX = KnownSet(
    name="gldv2-index",
    purpose="evaluation: Google Landmarks v2, database",
    photos="761,757 photos",
    licence="CC0 or public domain",
    sources=(GLDV2, "sizes: ~850 MB per archive (its README)"),
    parts=(
        *_gldv2_archives("index", 100, 850 * 10**6),
        *_gldv2_tables(
            "metadata/index.csv", "metadata/index_image_to_landmark.csv", "metadata/index_label_to_category.csv"
        ),
    ),
)

GLDV2_TEST = KnownSet(
    name="gldv2-test",
    purpose="evaluation: Google Landmarks v2, queries and their solutions (2.1)",
    photos="117,577 photos",
    licence="CC0 or public domain",
    sources=(GLDV2, "sizes: ~500 MB per archive (its README)"),
    parts=(
        *_gldv2_archives("test", 20, 500 * 10**6),
        *_gldv2_tables(
            "metadata/test.csv",
            "ground_truth/recognition_solution_v2.1.csv",
            "ground_truth/retrieval_solution_v2.1.csv",
        ),
    ),
)

GLDV2_CLEAN = KnownSet(
    name="gldv2-clean",
    purpose="training: the clean list of gldv2-train",
    photos="1,580,470 photos of 81,313 landmarks (in gldv2-train)",
    licence="list by team smlyaka; photos as gldv2-train",
    sources=(GLDV2,),
    finish=layouts.gldv2_clean,
    needs="gldv2-train",
    parts=_gldv2_tables("metadata/train_clean.csv"),
)

RGLDV2_CLEAN = KnownSet(
    name="rgldv2-clean",
    purpose="training: gldv2-clean without the landmarks of roxford5k and rparis6k",
    photos="1,565 photos and 17 landmarks fewer than gldv2-clean",
    licence="MIT (list); photos as gldv2-train",
    sources=(RGLDV2,),
    finish=layouts.rgldv2_clean,
    needs="gldv2-train",
    withdrawn=(
        "its authors publish no address at present (their README of 24 April 2024: 'to be released soon'; one "
        "of 25 October 2023 linked the file "
        "1AV65-pbcG4EceBVw3dqcjQc5KSZK6kLI on Google Drive)"
    ),
    parts=(Part(file="rgldv2_clean.csv"),),
)

SFM120K = KnownSet(
    name="sfm120k",
    purpose="training: retrieval-SfM-120k, landmarks by 3D reconstruction",
    photos="about 120,000 photos (with the 30k subset)",
    licence="photos under Flickr's terms, for research",
    sources=(CIRTORCH,),
    finish=layouts.sfm120k,
    parts=(
        Part(file="ims.tar.gz", addresses=(f"{SFM_SERVER}/ims/ims.tar.gz",), kind="photos", into="ims"),
        Part(file="retrieval-SfM-120k.pkl", addresses=(f"{SFM_SERVER}/dbs/retrieval-SfM-120k.pkl",)),
        Part(file="retrieval-SfM-120k-whiten.pkl", addresses=(f"{SFM_SERVER}/dbs/retrieval-SfM-120k-whiten.pkl",)),
    ),
)

INSTRE = KnownSet(
    name="instre",
    purpose="evaluation: small objects and logos, 1,250 queries (Iscen et al., CVPR 2017)",
    photos="27,293 photos, 1,250 queries",
    licence="not stated; for research",
    n_database=27293,
    n_queries=1250,
    finish=layouts.instre,
    sources=(OS2D, "sizes: 2.3 GB and 200 KB (README of os2d)"),
    parts=(
        Part(
            file="instre.tar.gz",
            addresses=(f"{INSTRE_SERVER}/instre.tar.gz",),
            kind="photos",
            into="jpg",
            about_bytes=2_300_000_000,
        ),
        Part(file="gnd_instre.mat", addresses=(f"{INSTRE_SERVER}/gnd_instre.mat",), about_bytes=200_000),
    ),
)


def _ilias_ids(*names: str) -> tuple[Part, ...]:
    return tuple(
        Part(file=name, addresses=(f"{ILIAS_SERVER}/image_ids/{name}",), into=f"image_ids/{name}") for name in names
    )


ILIAS_MINI = KnownSet(
    name="ilias",
    purpose="evaluation: ILIAS, 1,000 objects; queries and positives (the 5M distractors of mini-ILIAS are picked from "
    "6.3 TB of YFCC100M)",
    photos="4,715 photos, 1,232 queries",
    licence="CC BY 4.0, or as the photo's own address says",
    n_database=4715,
    n_queries=1232,
    finish=layouts.ilias,
    sources=(ILIAS,),
    parts=(
        Part(
            file="ilias_core.tar",
            addresses=(f"{ILIAS_SERVER}/ilias_core.tar",),
            kind="photos",
            into="jpg",
            checksum_address=f"{ILIAS_SERVER}/checksums.txt",
        ),
        *_ilias_ids("image_query_ids.txt", "text_query_ids.txt", "positive_ids.txt", "mini_ilias_yfcc100m_ids.txt"),
    ),
)

# What they are scored against, without the photos.
GROUND_TRUTHS = tuple(
    replace(part, into=f"groundtruth/{part.file}")
    for known in (ROXFORD5K, RPARIS6K)
    for part in known.parts
    if part.file.startswith("gnd_")
)
# Descriptors of the revisited sets, for `ultron descriptors import` and `ultron reproduce`.
REVISITOP_DESCRIPTORS = KnownSet(
    name="revisitop-descriptors",
    purpose="descriptors of roxford5k and rparis6k: R101-GeM with learned whitening, of the benchmark's authors",
    photos="descriptors of 2 datasets, no photos",
    licence="not stated; for research",
    sources=(REVISITOP,),
    parts=(
        *(
            Part(file=file, addresses=(f"{REVISITOP_FEATURES}/{file}",))
            for file in ("roxford5k_resnet_rsfm120k_gem.mat", "rparis6k_resnet_rsfm120k_gem.mat")
        ),
        *GROUND_TRUTHS,
    ),
)

DOLG_DESCRIPTORS = KnownSet(
    name="dolg-descriptors",
    purpose="descriptors of roxford5k and rparis6k: DOLG's two networks, queries cropped and not",
    photos="descriptors of 2 datasets, no photos",
    licence="not stated; for research",
    sources=(DOLG, f"ground truth: {REVISITOP}"),
    parts=(
        *(
            Part(file=file, addresses=(f"{DOLG_FEATURES}/{file}",), git_blob=git_blob)
            for file, git_blob in (
                ("roxford_R50_512_crop_test5.pickle", "2392ac13d50d4f6f5856b0d9b971f83fa71deec4"),
                ("roxford_R50_512_test5.pickle", "da143b26c0dc76af551a3e18a0e794e71a1baeff"),
                ("roxford_R101_512_crop_test1.pickle", "3e0e88f9112b736f5d45eba28210cc774d281ac1"),
                ("roxford_R101_512_crop_test3.pickle", "1d7fc673cb5f0fcc6244918c0840eede3a1d8905"),
                ("roxford_R101_512_crop_test5.pickle", "20c99ab81ae3f5474805d82c99bed8fbd4cd90c1"),
                ("roxford_R101_512_test5.pickle", "ac2401891d9e5a7b442c26d5ddd740a0e291fb48"),
                ("rparis_R50_512_crop_test5.pickle", "294caec3e2afe221974ff767e747804bc4feed79"),
                ("rparis_R50_512_test5.pickle", "a2ab5e01d21164d73c46982d6d6a7c451149b6a5"),
                ("rparis_R101_512_crop_test5.pickle", "c455457013fd05b6abdd9ed0dfc10e7504f93f92"),
                ("rparis_R101_512_test5.pickle", "110d16f521b2b98ac60d3ff8e54cf6f7153dc73d"),
            )
        ),
        *GROUND_TRUTHS,
    ),
)

KNOWN_SETS: dict[str, KnownSet] = {
    known.name: known
    for known in (
        ROXFORD5K,
        RPARIS6K,
        REVISITOP1M,
        GLDV2_TRAIN,
        GLDV2_CLEAN,
        RGLDV2_CLEAN,
        GLDV2_INDEX,
        GLDV2_TEST,
        SFM120K,
        INSTRE,
        ILIAS_MINI,
        HOLIDAYS,
        REVISITOP_DESCRIPTORS,
        DOLG_DESCRIPTORS,
    )
}
