import io

import pytest

from hf_maskattn.training.text_lines import lines_of_file, lines_of_stream


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"a", ["a"]),
        (b"a\n", ["a"]),
        (b"a\n\nb\n", ["a", "", "b"]),
        (b"\xef\xbb\xbfa\r\nb", ["a", "b"]),
        ("a\u2028b\n".encode(), ["a\u2028b"]),
    ],
)
def test_each_line_is_a_text(tmp_path, content, lines):
    (tmp_path / "texts").write_bytes(content)
    assert lines_of_file(tmp_path / "texts") == lines
    assert lines_of_stream(io.BytesIO(content)) == lines


def test_other_encodings_are_refused_with_the_line(tmp_path):
    with pytest.raises(ValueError, match=r"^stdin, line 2: not UTF-8 \(byte 0xe4\)"):
        lines_of_stream(io.BytesIO(b"a\nB\xe4r\n"))
