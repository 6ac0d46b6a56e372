"""Which published files the real rewards need, and where they lie on this machine.

Every file lies under one folder of weights, in a folder of its repository:

    <weights>/<organisation>--<name>/<file>

such as ``<weights>/openai--clip-vit-large-patch14/model.safetensors``, with the file
names of the repository. The ``fetch`` pipeline brings them there, and rewards read them
from there; no reward ever goes to the network. Revisions are pinned, because a
repository may change under its name.

The aesthetic head's checksum was computed from the file. The other checksums, and the
revisions, are those that several public projects record for these files; nothing here
was downloaded to verify them. A fetch that meets another checksum stops.

This module imports neither torch nor Kedro.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import quote

SITES = {
    "huggingface": "https://huggingface.co/{repo}/resolve/{revision}/{file}",
    "github": "https://raw.githubusercontent.com/{repo}/{revision}/{file}",
}

FLOAT32, HALF = 4, 2
"""Bytes of a weight."""


class ModelFile(NamedTuple):
    """One published file.

    Attributes:
        name: Its name in the repository.
        size: Bytes, perhaps rounded: for messages (a fetch asks for the exact one).
            None: some kilobytes, whose number says nothing to somebody who waits.
        sha256: Of its content, in hexadecimal, where it is known beforehand.
    """

    name: str
    size: int | None = None
    sha256: str | None = None


class Repository(NamedTuple):
    """Files of one published repository that belong together.

    Attributes:
        id: ``organisation/name``.
        revision: Commit.
        files: The files that are needed of it.
        site: Where it is published.
        loaded: Bytes of what is loaded of it, in memory (rounded).
    """

    id: str
    revision: str
    files: tuple[ModelFile, ...]
    site: Literal["huggingface", "github"] = "huggingface"
    loaded: float = 0

    def folder(self, weights: Path) -> Path:
        """Where its files lie under a folder of weights."""
        return weights / self.id.replace("/", "--")

    def url(self, file: ModelFile) -> str:
        """Address of one of its files, at the pinned revision."""
        return SITES[self.site].format(
            repo=self.id, revision=self.revision, file=quote(file.name)
        )


CLIP_L = Repository(
    "openai/clip-vit-large-patch14",
    "32bd64288804d66eefd0ccbe215aa642df71cc41",
    (
        ModelFile("config.json", 4_519),
        ModelFile(
            "model.safetensors",
            1_710_540_580,
            "a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
        ),
    ),
    loaded=FLOAT32 * 304e6,  # the image tower
)
AESTHETIC_HEAD = Repository(
    "christophschuhmann/improved-aesthetic-predictor",
    "6934dd81792f086e613a121dbce43082cb8be85e",
    (
        ModelFile(
            "sac+logos+ava1-l14-linearMSE.pth",
            3_714_759,
            "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
        ),
    ),
    site="github",
    loaded=FLOAT32 * 0.9e6,
)
PICKSCORE = Repository(
    "yuvalkirstain/PickScore_v1",
    "a4e4367c6dfa7288a00c550414478f865b875800",
    (
        ModelFile("config.json"),
        ModelFile("model.safetensors", 3_940_000_000),
        ModelFile("vocab.json"),
        ModelFile("merges.txt"),
    ),
    loaded=FLOAT32 * 986e6,
)
HPS_REVISION = "697403c78157020a1ae59d23f111aa58ced35b0a"
HPS_V2 = Repository(
    "xswu/HPSv2",
    HPS_REVISION,
    (ModelFile("HPS_v2_compressed.pt", 1_970_000_000),),
    loaded=FLOAT32 * 986e6,
)
HPS_V2_1 = Repository(
    "xswu/HPSv2",
    HPS_REVISION,
    (
        ModelFile(
            "HPS_v2.1_compressed.pt",
            1_970_000_000,
            "c57a38fb4a2f7e7c15bf00da2ea377cdf165448b4dd1052a484c215a998c9837",
        ),
    ),
    loaded=FLOAT32 * 986e6,
)
IMAGE_REWARD = Repository(
    "zai-org/ImageReward",
    "5736be03b2652728fb87788c9797b0570450ab72",
    (ModelFile("ImageReward.pt", 1_790_000_000),),
    loaded=FLOAT32 * 446e6,
)
BERT_TOKENIZER = Repository(
    "google-bert/bert-base-uncased",
    "86b5e0934494bd15c9632b12f734a8a67f723594",
    (
        ModelFile(
            "vocab.txt",
            231_508,
            "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        ),
    ),
)
LLAVA = Repository(
    "llava-hf/llava-1.5-7b-hf",
    "b234b804b114d9e37bb655e11cbbb5f5e971b7a9",
    (
        ModelFile("config.json"),
        ModelFile("generation_config.json"),
        ModelFile("model.safetensors.index.json"),
        ModelFile(
            "model-00001-of-00003.safetensors",
            4_990_000_000,
            "c11dbf016ee7d35ee130c19b67e20eb04873996006f424b7bcbd453b6517ee66",
        ),
        ModelFile(
            "model-00002-of-00003.safetensors",
            4_960_000_000,
            "46df6c6e5fad297fe7fbca4963dcf180cb1d0528cabc884d1f603311fed01328",
        ),
        ModelFile(
            "model-00003-of-00003.safetensors",
            4_180_000_000,
            "4f06177c37ca13944e73b57dd6d051767b950dffc12400c700dfa2509c24c697",
        ),
        ModelFile("tokenizer.json", 3_620_000),
        ModelFile("tokenizer_config.json"),
    ),
    loaded=HALF * 7063e6,
)
DEBERTA = Repository(
    "microsoft/deberta-xlarge-mnli",
    "5b07a9086c1dbb79981ff7b05b4d1ad83b3af51c",
    (
        ModelFile("config.json"),
        ModelFile(
            "pytorch_model.bin",
            3_040_000_000,
            "60a1cac3b855e6994dd09daee5f697bd13f34bc1bada78d60844574872b092c3",
        ),
        ModelFile("vocab.json", 899_000),
        ModelFile("merges.txt", 456_000),
    ),
    loaded=FLOAT32 * 640e6,  # 40 of its 48 layers
)


class MissingWeightsError(FileNotFoundError):
    """Published files that a reward needs are not on this machine."""


def missing_files(repository: Repository, weights: Path) -> list[ModelFile]:
    """The files of a repository that are not under the folder of weights."""
    return missing_from(repository.folder(weights), repository.files)


def missing_from(folder: Path, files: Iterable[ModelFile]) -> list[ModelFile]:
    """The files that are not in a folder."""
    return [file for file in files if not (folder / file.name).is_file()]


def listed(files: Iterable[ModelFile]) -> str:
    """Names of files and the sizes of those that are large, for a message."""
    return ", ".join(
        file.name if file.size is None else f"{file.name} ({size(file.size)})"
        for file in files
    )


def require_files(repository: Repository, weights: Path) -> Path:
    """The folder of a repository whose files are all there.

    Raises:
        MissingWeightsError: If one is missing; names each, its size and what to run.
    """
    missing = missing_files(repository, weights)
    folder = repository.folder(weights)
    if missing:
        names = listed(missing)
        raise MissingWeightsError(
            f"The weights of {repository.id} are not all in {folder}: {names} "
            f"{'is' if len(missing) == 1 else 'are'} missing. Get them with: "
            "kedro run --pipelines fetch --env <env>"
        )
    return folder


def size(count: int) -> str:
    """A number of bytes, in a unit for people."""
    for unit, bytes_ in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= bytes_:
            return f"{count / bytes_:.3g} {unit}"
    return f"{count} bytes"
