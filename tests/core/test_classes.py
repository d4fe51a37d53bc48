from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from emotion_assets.core.classes import DEFAULT_CLASSES, EMOTIONS, raw_folder, read_classes
from emotion_assets.core.errors import UnusableDataError


def test_emotions_order() -> None:
    """The order of the default classes is part of the contract."""
    assert EMOTIONS == ("angry", "fear", "happy", "sad", "surprise") == DEFAULT_CLASSES.names


@pytest.mark.parametrize(
    ("name", "emotion"),
    [
        ("Angry", "angry"),
        ("ANGER", "angry"),
        ("fearful", "fear"),
        ("Happiness", "happy"),
        ("Sadness", "sad"),
        ("Suprise", "surprise"),
        ("Surprised ", "surprise"),
        ("0_angry", "angry"),
        ("3-happy", "happy"),
        ("4. Sad", "sad"),
        ("Happy (1)", "happy"),
        ("happy2", "happy"),
        ("sad - Copy", "sad"),
        ("angry_faces", "angry"),
        ("FEAR images", "fear"),
        ("Neutral", None),
        ("unhappy", "sad"),
        ("train", None),
        ("2", None),
        ("", None),
    ],
)
def test_folders_are_found_by_many_spellings(name: str, emotion: str | None) -> None:
    """Case, numbers, copies and the spellings of public data sets do not matter; any other folder has no class."""
    assert DEFAULT_CLASSES.find(name) == emotion


def test_other_emotions_and_close_names_are_recognized() -> None:
    """A message can say what a folder would be."""
    assert DEFAULT_CLASSES.names_other_class("1_disgust")
    assert not DEFAULT_CLASSES.names_other_class("train")
    assert DEFAULT_CLASSES.closest("hapy") == "happy"
    assert DEFAULT_CLASSES.closest("validation") is None


def test_classes_are_read_from_a_file(tmp_path: Path) -> None:
    """Order, titles and folder names are the user's; known emotions keep their synonyms."""
    path = tmp_path / "classes.yaml"
    path.write_text(
        "- Überrascht\n- {name: very glad, title: Delighted, folders: [joyous, 3]}\n- sad\n".replace("3", "'3'")
    )

    classes = read_classes(path)

    assert classes.names == ("Überrascht", "very glad", "sad")
    assert classes.titles == ("Überrascht", "Delighted", "sad")
    assert [classes.find(name) for name in ("überrascht", "Very_Glad", "3", "JOYOUS", "sadness", "happy")] == [
        "Überrascht",
        "very glad",
        "very glad",
        "very glad",
        "sad",
        None,
    ]
    assert [classes.find(raw_folder(name)) for name in classes.names] == list(classes.names)
    assert read_classes(tmp_path / "missing.yaml") is DEFAULT_CLASSES


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("kızgın", "KIZGIN"),
        ("İyi", "iyi"),
        ("\u200fسعيد", "سعيد"),
        ("happy\u200b", "Happy"),
        ("\u2764\ufe0f", "\u2764"),
    ],
    ids=["dotless i", "dotted I", "right-to-left mark", "zero-width space", "emoji style"],
)
def test_case_and_what_is_invisible_do_not_matter(tmp_path: Path, name: str, folder: str) -> None:
    path = tmp_path / "classes.yaml"
    path.write_text(f'- "{name}"\n- sad\n', encoding="utf-8")

    assert read_classes(path).find(folder) == name


def test_the_folder_of_a_class_is_found_again(tmp_path: Path) -> None:
    """The dotless ı has no capital of its own, and names of an earlier list resolve by folder and case."""
    path = tmp_path / "classes.yaml"
    path.write_text("- ılık\n- {name: Blue, folders: [sad]}\n", encoding="utf-8")

    classes = read_classes(path)

    assert [classes.find(raw_folder(name)) for name in classes.names] == ["ılık", "Blue"]
    assert [classes.resolve(name) for name in ("blue", "Sad", "sad 2")] == ["Blue", "Blue", None]


def test_a_class_named_by_a_synonym_has_the_others(tmp_path: Path) -> None:
    """`fearful` reads FER2013's folder `Fear`."""
    path = tmp_path / "classes.yaml"
    path.write_text("- fearful\n- disgusted\n- {name: surprised, folders: [fear]}\n")

    classes = read_classes(path)

    assert [classes.find(name) for name in ("Disgust", "Suprise", "scared", "Fear")] == [
        "disgusted",
        "surprised",
        "fearful",
        "surprised",
    ]


def test_numbered_classes_stay_apart(tmp_path: Path) -> None:
    """A number is left out of a folder's name only where the name with it stands for no class."""
    path = tmp_path / "classes.yaml"
    path.write_text("".join(f"- class {number}\n" for number in range(40)))

    classes = read_classes(path)

    assert [classes.find(f"class_{number}") for number in range(40)] == list(classes.names)
    assert classes.find("class_41") is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("happy", "it is not a list"),
        ("- happy", "it has 1"),
        ("", "it is not a list"),
        ("- yes\n- no", "True is not text; put it in quotes"),
        ("- happy\n- Happy", "'Happy' occurs twice"),
        ("- happy\n- a/b", "'a/b' cannot name a class"),
        ("- happy\n- ..", "cannot name a class"),
        ("- ' '\n- happy", "cannot name a class"),
        (f"- {'a' * 61}\n- happy", "cannot name a class"),
        ("- Feedback\n- happy", "cannot name a class"),
        ("- {name: sad, folders: [feedback]}\n- happy", "cannot name a class"),
        ("- {name: a, folders: [x]}\n- {name: b, folders: [X]}", "stands for both a and b"),
        ("- {name: a, colour: red}\n- b", "unknown key 'colour'"),
        ("- [", "expected"),
    ],
)
def test_a_wrong_file_is_explained(tmp_path: Path, text: str, problem: str) -> None:
    """The message names the file, the problem and the form."""
    path = tmp_path / "classes.yaml"
    path.write_text(text)

    with pytest.raises(
        UnusableDataError, match=r"(?s)classes.yaml does not describe classes.*List at least two"
    ) as error:
        read_classes(path)

    assert problem in str(error.value)


def test_tags_in_the_file_run_nothing(tmp_path: Path) -> None:
    """The file is data; a tag that names a function is an error."""
    path, proof = tmp_path / "classes.yaml", tmp_path / "proof"
    path.write_text(f"- happy\n- !!python/object/apply:os.system ['touch {proof}']\n")

    with pytest.raises(UnusableDataError, match="could not determine a constructor"):
        read_classes(path)

    assert not proof.exists()


def test_letters_may_be_composed_or_not(tmp_path: Path) -> None:
    """macOS writes folder names in pieces; the name of the class is whole in either case."""
    path = tmp_path / "classes.yaml"
    for form in ("NFC", "NFD"):
        path.write_text(unicodedata.normalize(form, "- Überrascht\n- sad\n"), encoding="utf-8")
        classes = read_classes(path)
        assert classes.names == ("Überrascht", "sad")
        assert [classes.find(unicodedata.normalize(each, "überrascht")) for each in ("NFC", "NFD")] == [
            "Überrascht"
        ] * 2


def test_one_further_folder_needs_no_list(tmp_path: Path) -> None:
    path = tmp_path / "classes.yaml"
    path.write_text("- {name: glad, folders: joyous}\n- sad\n")

    classes = read_classes(path)

    assert [classes.find(name) for name in ("joyous", "j", "glad")] == ["glad", None, "glad"]


def test_default_titles_complete_the_sentence() -> None:
    """This face looks …"""
    assert DEFAULT_CLASSES.titles == ("angry", "afraid", "happy", "sad", "surprised")


def test_a_class_is_no_other_class() -> None:
    assert not DEFAULT_CLASSES.names_other_class("happiness")
    assert DEFAULT_CLASSES.closest("hall") is None
