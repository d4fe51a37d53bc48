from __future__ import annotations

import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emotion_assets.core.errors import UnusableDataError
from emotion_assets.core.layout import DataPaths
from emotion_assets.importers.__main__ import import_faces
from emotion_assets.steps.ingest.catalogue import ingest_images
from emotion_assets.steps.ingest.export import read_catalogue

USAGES = ("Training", "PublicTest", "PrivateTest")
ROWS = [
    (emotion, np.random.default_rng(emotion).integers(0, 256, (48, 48)), usage)
    for emotion in range(7)
    for usage in USAGES
]


def write_table(path: Path, header: str, order: tuple[int, ...]) -> Path:
    lines = [header]
    for number, (emotion, pixels, usage) in enumerate(ROWS):
        moved = np.roll(pixels, number)
        fields = (str(emotion), " ".join(map(str, moved.ravel())), usage)
        lines.append(",".join(fields[index] for index in order))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("name", "header", "order"),
    [
        ("fer2013.csv", "emotion,pixels,Usage", (0, 1, 2)),
        ("icml_face_data.csv", "emotion, Usage, pixels", (0, 2, 1)),
    ],
)
def test_fer2013_becomes_images(tmp_path: Path, name: str, header: str, order: tuple[int, ...]) -> None:
    """Both published forms give the same images, each below its part and emotion; twice changes nothing."""
    source, paths = write_table(tmp_path / name, header, order), DataPaths(tmp_path / "data")

    first, second = (import_faces(paths, source, None) for _ in range(2))

    assert (first[0], second[0]) == (
        "21 images are new, 0 were there before.",
        "0 images are new, 21 were there before.",
    )
    image = Image.open(paths.raw / source.stem / "Training" / "Angry" / "000001.png")
    assert np.array_equal(np.asarray(image), ROWS[0][1])
    ingest_images(paths, num_workers=1)
    table = read_catalogue(paths.catalogue)
    assert Counter(table.loc[table["is_accepted"], "label"]) == dict.fromkeys(
        ("angry", "fear", "happy", "sad", "surprise"), 3
    )
    assert set(table.loc[~table["is_accepted"], "reason_code"]) == {"other_class"}


def test_a_part_is_held_out(tmp_path: Path) -> None:
    source, paths = (
        write_table(tmp_path / "fer2013.csv", "emotion,pixels,Usage", (0, 1, 2)),
        DataPaths(tmp_path / "data"),
    )

    import_faces(paths, source, "PrivateTest")

    assert {path.parents[1].name for path in paths.external.rglob("*.png")} == {"PrivateTest"}
    assert {path.parents[1].name for path in paths.raw.rglob("*.png")} == {"Training", "PublicTest"}


def test_a_table_in_an_archive(tmp_path: Path) -> None:
    """The challenge published its table in a tar archive."""
    source = write_table(tmp_path / "fer2013.csv", "emotion,pixels,Usage", (0, 1, 2))
    with tarfile.open(tmp_path / "fer2013.tar.gz", "w:gz") as archive:
        archive.add(source, "fer2013/fer2013.csv")
    paths = DataPaths(tmp_path / "data")

    import_faces(paths, tmp_path / "fer2013.tar.gz", None)

    assert len(list((paths.raw / "fer2013" / "fer2013" / "fer2013" / "Training").rglob("*.png"))) == 7


def test_own_codes_are_not_mixed_with_those_of_fer2013(tmp_path: Path) -> None:
    """A table whose 0 means happy does not call happy 3 as well."""
    source, paths = write_table(tmp_path / "own.csv", "emotion,pixels,Usage", (0, 1, 2)), DataPaths(tmp_path)
    paths.classes.write_text('- {name: happy, folders: ["0"]}\n- {name: sad, folders: ["1"]}\n')

    lines = import_faces(paths, source, None)

    assert lines[0].startswith("6 images are new")
    assert lines[1].startswith("15 entries were left out: a row whose code names no class")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("7," + " ".join(["0"] * 64), "whose code names no class"),
        ("3,1 2 3", "not a square"),
        ("3," + " ".join(["0"] * 65), "not a square"),
        ("3," + " ".join(["256"] * 64), "not a square"),
        ("3,a b c d", "not a square"),
        ("3", "too few columns"),
        ("../../..," + " ".join(["0"] * 64), "leads out of the folder"),
        ("x/../../../..," + " ".join(["0"] * 64), "leads out of the folder"),
    ],
)
def test_a_bad_row_is_counted(tmp_path: Path, row: str, reason: str) -> None:
    """It does not end the import."""
    good = "happy," + " ".join(map(str, range(64)))
    (tmp_path / "x.csv").write_text(f"emotion,pixels\n{row}\n{good}\n")
    paths = DataPaths(tmp_path / "data")

    lines = import_faces(paths, tmp_path / "x.csv", None)

    assert lines[0] == "1 images are new, 0 were there before."
    assert reason in lines[1]
    assert [path.parent.name for path in paths.raw.rglob("*.png")] == ["happy"]


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_columns_may_be_separated_as_excel_does(tmp_path: Path, delimiter: str) -> None:
    """By semicolons, where decimals have a comma."""
    (tmp_path / "x.csv").write_text(f"emotion{delimiter}pixels\nhappy{delimiter}" + " ".join(map(str, range(64))))
    paths = DataPaths(tmp_path / "data")

    import_faces(paths, tmp_path / "x.csv", None)

    assert [path.parent.name for path in paths.raw.rglob("*.png")] == ["happy"]


def test_another_table_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("name,age\nAnna,3\n")
    (tmp_path / "y.csv").write_bytes(b"emotion,pixels\n3,\xff\xfe\n")

    assert "without the columns emotion and pixels" in import_faces(DataPaths(tmp_path), tmp_path / "x.csv", None)[1]
    with pytest.raises(UnusableDataError, match="cannot be read"):
        import_faces(DataPaths(tmp_path), tmp_path / "y.csv", None)


def test_codes_may_stand_for_other_classes(tmp_path: Path) -> None:
    """A folder name in classes.yaml is also a code in a table; pandas writes codes with a decimal point."""
    paths = DataPaths(tmp_path)
    paths.classes.write_text("- {name: sad, folders: ['0']}\n- {name: happy, folders: ['1']}\n")
    rows = "".join(
        f"{code},{' '.join(map(str, range(number, number + 64)))}\n" for number, code in enumerate(("0", "1.0"))
    )
    (tmp_path / "x.csv").write_text(f"emotion,pixels\n{rows}")

    import_faces(paths, tmp_path / "x.csv", None)

    assert {path.parent.name for path in paths.raw.rglob("*.png")} == {"Sad", "Happy"}


def test_codes_of_other_tables_are_no_emotions(tmp_path: Path) -> None:
    """A code means one of FER2013's emotions only to somebody who has such classes."""
    paths = DataPaths(tmp_path)
    paths.classes.write_text("- apple scab\n- black rot\n")
    (tmp_path / "x.csv").write_text("emotion,pixels\n3," + " ".join(["0"] * 64) + "\n")

    assert "whose code names no class" in import_faces(paths, tmp_path / "x.csv", None)[1]
