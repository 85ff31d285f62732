import gzip
import struct

import pytest
import torch

from hf_maskattn.embeddings.vector_files import VectorFile
from tests.embeddings.toy_source import write_vectors

WORDS = ["the", "é", "cat", "new york", "dog"]
TOKENS = ["[PAD]", "dog", "é", "cow", "the"]
SIZE = 3


@pytest.mark.parametrize(
    ("name", "header"),
    [("glove.txt", False), ("cc.en.vec", True), ("CC.VEC.GZ", True), ("w2v.bin", True), ("w2v.bin.gz", True)],
)
def test_formats(tmp_path, name, header):
    vectors = write_vectors(tmp_path / name.lower(), WORDS, SIZE, header=header)
    (tmp_path / name.lower()).rename(tmp_path / name)
    file = VectorFile(str(tmp_path / name))
    found, loaded = file.load(TOKENS)
    assert (file.size, found) == (SIZE, [1, 2, 4])
    assert torch.equal(loaded, vectors[[4, 1, 0]])


@pytest.mark.parametrize("end", [" \n", "\r\n", "\n\n"])
def test_other_line_ends(tmp_path, end):
    (tmp_path / "a.vec").write_bytes(f"2 2{end}cat 1 2{end}dog 3 -4e-1{end}".encode())
    found, vectors = VectorFile(str(tmp_path / "a.vec")).load(["dog", "cat"])
    assert found == [0, 1]
    assert vectors.tolist() == [[3, pytest.approx(-0.4)], [1, 2]]


@pytest.mark.parametrize(("name", "header"), [("a.vec", ""), ("a.vec", "2 2\n"), ("a.vec.gz", "2 2\n")])
def test_byte_order_mark_is_skipped(tmp_path, name, header):
    content = f"\ufeff{header}dog 1 2\ncat 3 4\n".encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    found, vectors = VectorFile(str(tmp_path / name)).load(["dog", "cat"])
    assert (found, vectors.tolist()) == ([0, 1], [[1, 2], [3, 4]])


def test_no_word_is_found(tmp_path):
    write_vectors(tmp_path / "a.vec", ["cat"], SIZE)
    assert VectorFile(str(tmp_path / "a.vec")).load(["dog"])[1].shape == (0, SIZE)


BROKEN_TEXT = {
    "cat 1 2\ndog 1": r"line 2: a word and 2 numbers, separated by spaces, are expected, got 1 numbers",
    "cat 1 2\nowl 1": r"line 2: a word and 2 numbers, separated by spaces, are expected, got 1 numbers",
    "cat 1 2\ndog 1 2 3": r"line 2: a word and 2 numbers, separated by spaces, are expected, got 3 numbers",
    "cat 1 2\nowl 1 2 3": r"line 2: a word and 2 numbers, separated by spaces, are expected, got 3 numbers",
    "2 2\ncat 1 2\ndog 1 x": r"line 3: a word and numbers are expected, could not convert string to float: b'x'",
    "2 2\ncat 1 2\ndog 1 nan": r"line 3: the vector of 'dog' must be finite",
    "dog 1 2\ncat 1 2\ndog 1 3": r"line 3: 'dog' must have one vector, got another one in 1",
    "3 2\ncat 1 2\ndog 1 2": r"must have 3 words, as its first line says, got 2. Copy it again",
    "1 2\ncat 1 2\nowl 1 2": r"must have 1 words, as its first line says, got 2. Copy it again",
    "2 1\ncat 1 2\ndog 1 2": r"line 2: a word and 1 numbers, separated by spaces, are expected, got 2 numbers",
    "2 3\ncat 1 2\ndog 1 2": r"line 2: a word and 3 numbers, separated by spaces, are expected, got 2 numbers",
    "not a vector": r"line 1: a word and numbers are expected, could not convert string to float: b'a'",
    "9 99999999": r"line 1: the size of the vectors must be in \[1, 65536\], got 99999999",
    "": r"line 1: a word and the numbers of its vector are expected, got an empty line",
    "\ncat 1 2": r"line 1: a word and the numbers of its vector are expected, got an empty line",
    "cat": r"line 1: a word and the numbers of its vector are expected, got cat",
}


ENTRY = b"dog " + struct.pack("<2f", 1, 2)
BROKEN_BINARY = {
    b"2 2\n" + ENTRY: "entry 2: a word, a space and 2 numbers are expected. The header has 2 words",
    b"1 2\n" + ENTRY[:-1]: "entry 1: a word, a space and 2 numbers are expected",
    b"1 2\n" + ENTRY + b"\n" + ENTRY: "entry 2: the file must end here, the header has 1 words",
    b"2 2\n" + ENTRY + ENTRY: "entry 2: 'dog' must have one vector, got another one in 1",
    b"1 2\n" + b"x" * 20_000: "entry 1: a word, a space and 2 numbers are expected",
    b"cat 0.1\n": "entry 1: the file must start with a line of two numbers",
    struct.pack("<2i", 793712314, 12): "must be in word2vec's binary format, got a model of fastText. Use its .vec file.",
}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        *(("broken.vec", content.encode(), message) for content, message in BROKEN_TEXT.items()),
        ("broken.vec", b"caf\xe9\n", "line 1: a word and the numbers of its vector are expected, got caf\ufffd"),
        *(("broken.bin", content, message) for content, message in BROKEN_BINARY.items()),
    ],
)
def test_broken_file(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^{path}(, | ){message}"):
        VectorFile(str(path)).load(["dog", "cat"])


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: b"2 2\ncat 1 2\n", lambda data: data[:20] + b"?" * 30])
def test_damaged_gzip_file(tmp_path, damage):
    path = tmp_path / "a.vec.gz"
    path.write_bytes(damage(gzip.compress(b"2 2\ncat 1 2\ndog 1 2\n")))
    with pytest.raises(ValueError, match=r"is not a complete gzip file: .* Copy it again"):
        VectorFile(str(path)).load(["dog", "cat"])


def test_missing_file_and_other_suffix(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must exist, got '.*none.vec'. There is no such file, relative to"):
        VectorFile(str(tmp_path / "none.vec"))
    (tmp_path / "glove.zip").write_bytes(b"")
    with pytest.raises(ValueError, match=r"must end with .txt, .vec, .bin, also with .gz, got .*glove.zip"):
        VectorFile(str(tmp_path / "glove.zip"))
