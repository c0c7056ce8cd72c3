"""URIs of folders and files, and what file systems raise."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from PIL import Image

from adder_onnx import memory
from adder_onnx.errors import DataError, MissingDependencyError
from adder_onnx.evaluation import file_systems, open_dataset
from adder_onnx.evaluation.folder_uri import parse_folder_uri
from adder_onnx.evaluation.listed_folder import list_folder
from adder_onnx.evaluation.listed_image_folder import read_listed_folder
from tests.listed_folders import REASON, object_store

fs = pytest.importorskip("pyarrow.fs", reason=REASON)

# Each means something in a URI, in a shell or in a page, or has no place in them.
_TEXTS = (
    "a b",
    "a#b",
    "a?b=c&d",
    "50%",
    "%41",
    "%2F",
    "%",
    "Übung äß",
    "e\u0301",
    "日本",
    "new\nline\r\ttab",
    "right\u202eto left",
    "'\"<>`\\^{|}[]",
    "</script>",
    "a+b,c;d:e@f=g!$*()~-_",
    "\x01\x1b[31m\x7f",
    "x" * 240,
    " ",
)
_NAMES = tuple(text.replace("/", "") for text in _TEXTS)
_PLAIN = "/!$&'()*+,;=:@"


def _save(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (2, 2), value).save(path)
    return path


def test_every_name_of_an_image_opens_it_elsewhere(tmp_path: Path) -> None:
    for value, name in enumerate(_NAMES):
        _save(tmp_path / "set" / name / f"{name}.png", value)
    uri = f"file://{quote(str(tmp_path / 'set'))}"
    listed, local = read_listed_folder(uri), open_dataset(tmp_path / "set", "imagefolder")
    assert listed.classes == local.classes == tuple(sorted(_NAMES))
    assert listed.images == local.images == len(_NAMES)
    for i in range(len(_NAMES)):
        system, path = fs.FileSystem.from_uri(listed.name_of(i))
        assert path == local.name_of(i)
        with system.open_input_stream(path) as file:
            assert file.read() == Path(path).read_bytes()
        assert listed.load(i) == local.load(i)
        assert listed.name_of(i).isascii()
        assert listed.name_of(i).isprintable()


@pytest.mark.parametrize("name", _NAMES)
def test_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    """Whether all that may be encoded is, or what has no place in a URI stays as it is."""
    _save(tmp_path / name / "cat" / "a.png")
    whole = "".join(f"%{byte:02x}" for byte in os.fsencode(f"/{name}"))
    raw = "".join(f"%{ord(c):02X}" if c in "%#?" else c for c in name)
    expected = f"file://{quote(str(tmp_path / name), _PLAIN)}"
    for uri in (f"file://{tmp_path}{whole}", f"FILE://{tmp_path}/{raw}/"):
        assert str(list_folder(uri)) == expected
        assert read_listed_folder(uri).name_of(0) == f"{expected}/cat/a.png"


@pytest.mark.parametrize(
    ("uri", "above", "inside"),
    [
        ("s3://bucket/a/b?region=x&scheme=http", "s3://bucket/?region=x&scheme=http", "a/b/c"),
        ("s3://bucket?endpoint_override=http://[::1]:9000", None, "c"),
        ("gs://anonymous@bucket/a", "gs://anonymous@bucket/", "a/c"),
        ("hdfs://me@namenode:8020/user/a%20b", "hdfs://me@namenode:8020/", "user/a%20b/c"),
        ("hdfs:///user", "hdfs:///", "user/c"),
        ("abfs://container@account.dfs.core.windows.net/a", None, "a/c"),
        ("file:///a%2fb//c%25/./d/", "file:///", "a/b/c%25/./d/c"),
    ],
)
def test_parts_of_uris(uri: str, above: str | None, inside: str) -> None:
    """What lies elsewhere on the file system keeps the options, which say how to get there."""
    parsed = parse_folder_uri(uri)
    query = uri.partition("?")[2]
    assert parsed.at((*parsed.names, "c")).partition("?")[::2] == (
        f"{parsed.anchor}/{inside}",
        query,
    )
    assert above is None or parsed.at(()) == above
    assert parse_folder_uri(str(parsed)) == parsed


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("nope://x/y", "cannot read nope://x/y: Unrecognized filesystem type in URI"),
        ("file://host/folder", "cannot read file://host/folder: Unsupported hostname"),
        ("s3://bucket/a?nonsense=1", "Unexpected query parameter in S3 URI: 'nonsense'"),
        ("s3://bucket/a?b\nc", "cannot read s3://bucket/a?b%0Ac: Unexpected query"),
        ("file://ho\nst/a", "cannot read file://ho%0Ast/a: Unsupported hostname"),
        ("file:///no/such%20folder", "file:///no/such%20folder does not exist"),
        ("file:///no/such\nfolder", "file:///no/such%0Afolder does not exist"),
        ("file:///dev/null/x", "file:///dev/null/x is not a folder; expected one folder"),
        ("file:///%FF", "'file:///%FF' is not a URI of UTF-8"),
        ("file:///a%00b", "cannot read file:///a%00b: "),
        ("file:///a#b", "'file:///a#b': write %23 for # in a URI"),
        ("file:///a\nb#c", "'file:///a\\nb#c': write %23 for # in a URI"),
        ("folder/cat", "'folder/cat' is not a URI; expected one such as s3://bucket/folder"),
        ("://a\nb", "'://a\\nb' is not a URI"),
        ("", "'' is not a URI"),
    ],
)
def test_what_cannot_be_read_is_one_line(uri: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read_listed_folder(uri)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://key:swordfish@bucket/a\n",
        "S3://key:sword@fish@bucket/a?region=x",
        "s3://:swordfish@bucket",
        "abfs://c@account.dfs.core.windows.net/a?tenant_id=1&client_secret=swordfish",
        "abfs://c@account.dfs.core.windows.net/a?sv=1&sig=swordfish",
    ],
)
def test_secrets_do_not_get_into_names(uri: str) -> None:
    with pytest.raises(DataError, match="holds a password: its file system takes it from") as error:
        read_listed_folder(uri)
    assert "fish" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (OSError("When listing\nobjects: AWS Error\n\tX"), "b: When listing objects: AWS Error X"),
        (OSError(f"begin{'z' * 100_000}end"), "end"),
        (OSError("AWS Error ACCESS_DENIED during ListObjectsV2"), "AWS_SECRET_ACCESS_KEY"),
        (OSError(f"{'z' * 1000} INVALID_ACCESS_KEY_ID {'z' * 1000}"), "give credentials that may"),
        (PermissionError(13, "Permission denied"), "b: [Errno 13] Permission denied"),
        (NotImplementedError("Arrow compiled without HDFS"), "b: Arrow compiled without HDFS"),
        (ImportError("Install huggingface_hub"), "b: Install huggingface_hub"),
        (RuntimeError(), "b: RuntimeError"),
        (OSError("\x1b[31mred"), "·[31mred"),
    ],
)
def test_what_file_systems_raise(
    raised: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(uri: str) -> None:
        raise raised

    monkeypatch.setattr(file_systems, "_from_uri", fail)
    with pytest.raises(DataError, match=r"^cannot read s3://a/b: ") as caught:
        read_listed_folder("s3://a/b")
    assert message in str(caught.value)
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


def test_without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "adder-onnx\[ray\]"'):
        read_listed_folder("s3://bucket/folder")


def test_a_file_that_is_named_in_the_place_of_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    object_store(monkeypatch, {"a/b.png": b""})
    with pytest.raises(DataError, match=r"^store://bucket/a/b\.png is not a folder"):
        read_listed_folder("store://bucket/a/b.png")
    with pytest.raises(DataError, match=r"^store://bucket/c does not exist$"):
        read_listed_folder("store://bucket/c")


@pytest.mark.parametrize("path", ["", "/a", "/a/b.c/d e.tar.PNG", "/.x", "/a.b/z"])
def test_attributes_are_those_of_a_path(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one whose root is the bucket."""
    object_store(monkeypatch, {"a/x.png": b""})
    ours, theirs = list_folder("store://bucket"), Path("/")
    for name in path.split("/"):
        ours, theirs = ours / name, theirs / name
    for attribute in ("name", "stem", "suffix"):
        assert getattr(ours, attribute) == getattr(theirs, attribute)
    assert ours.parts == ("store://bucket", *theirs.parts[1:])
    assert ours.parent.parts[1:] == theirs.parent.parts[1:]
    assert [p.parts[1:] for p in ours.parents] == [p.parts[1:] for p in theirs.parents]
    assert ours.absolute() == ours == ours.parent / ours.name


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"^file://{tmp_path} is an empty folder$"):
        read_listed_folder(f"file://{tmp_path}")


def test_names_that_no_uri_has(tmp_path: Path) -> None:
    """Of bytes that are no UTF-8."""
    _save(tmp_path / "cat" / "a.png")
    with open(os.fsencode(tmp_path / "cat") + b"/\xff.png", "wb"):
        pass
    with pytest.raises(DataError, match=f"^cannot read file://{tmp_path}: 'utf-8' codec"):
        read_listed_folder(f"file://{tmp_path}")


def test_an_image_that_is_gone_or_is_none(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        _save(tmp_path / "a cat" / f"{name}.png")
    (tmp_path / "a cat" / "b.png").write_bytes(b"text")
    dataset = read_listed_folder(f"file://{tmp_path}")
    (tmp_path / "a cat" / "a.png").unlink()
    uri = f"file://{tmp_path}/a%20cat"
    with pytest.raises(DataError, match=f"^{uri}/a.png does not exist$"):
        dataset.load(0)
    with pytest.raises(DataError, match=f"^{uri}/b.png is not an image that Pillow can read$"):
        dataset.load(1)
    assert dataset.load(2) == open_dataset(tmp_path / "a cat" / "c.png").load(0)


def test_a_file_larger_than_the_memory_allowed_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _save(tmp_path / "cat" / "a.png")
    with path.open("ab") as file:
        file.truncate(1 << 26)
    dataset = read_listed_folder(f"file://{tmp_path}")
    with (
        memory.limited(1 << 20),
        pytest.raises(DataError, match=r"cat/a\.png takes 64\.0 MiB of memory"),
    ):
        dataset.load(0)
    path.write_bytes(_save(tmp_path / "small.png").read_bytes())
    object_store(monkeypatch, {"a.png": path.read_bytes() + bytes(1 << 20)})
    with memory.limited(1 << 20), pytest.raises(DataError, match=r"a\.png takes 1\.0 MiB"):
        read_listed_folder("store://bucket").load(0)
    monkeypatch.undo()
    with memory.limited(1 << 20):
        assert read_listed_folder(f"file://{tmp_path}").load(0) == open_dataset(path).load(0)


def test_labels_beside_images_are_text_of_bounded_size(tmp_path: Path) -> None:
    _save(tmp_path / "val" / "a.png")
    with (tmp_path / "val" / "val_annotations.txt").open("wb") as file:
        file.truncate(1 << 26)
    listed = list_folder(f"file://{tmp_path}") / "val/val_annotations.txt"
    assert listed.read(10) == bytes(10)
    with pytest.raises(DataError, match=r"val_annotations\.txt is not a text file of at most"):
        read_listed_folder(f"file://{tmp_path}/val")


def test_names_that_a_store_has_and_a_disk_has_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """A file and a folder of one name are both read; what cannot be is told."""
    image = _save(tmp_path / "image.png").read_bytes()
    keys = ("cat/a.png", "cat/a.png/b.png", "cat//c.png", "/d.png", "cat/.e.png", "../f.png")
    object_store(monkeypatch, dict.fromkeys(keys, image))
    dataset = read_listed_folder("store://bucket")
    names = [dataset.name_of(i) for i in range(dataset.images)]
    assert names == ["store://bucket/cat/a.png", "store://bucket/cat/a.png/b.png"]
    assert dataset.load(0) == dataset.load(1)
    assert "2 files in folders without a name, which cannot be read, such as" in caplog.text
