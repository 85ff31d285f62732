import pyarrow as pa
import pytest

from hf_maskattn.data.schemas import JSON, is_castable, merge_schemas


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        (pa.null(), pa.string(), True),
        (pa.int32(), pa.int64(), True),
        (pa.int64(), pa.float64(), True),
        (pa.large_string(), pa.string(), True),
        (pa.list_(pa.null()), pa.list_(pa.string()), True),
        (pa.string(), pa.int64(), False),
        (pa.int64(), pa.string(), False),
        (pa.float64(), pa.int64(), False),
        (pa.bool_(), pa.int64(), False),
        (pa.list_(pa.string()), pa.list_(pa.int64()), False),
        (pa.string(), pa.list_(pa.string()), False),
    ],
)
def test_is_castable(source, target, expected):
    assert is_castable(source, target) is expected


def test_merge_schemas_without_common_type():
    first, second = pa.schema([("x", pa.int64())]), pa.schema([("x", pa.string())])
    assert merge_schemas(first, second, allow_mixed=True).field("x").type == JSON
    with pytest.raises(ValueError, match="the column 'x' must have one type in all files, got int64 and string"):
        merge_schemas(first, second, allow_mixed=False)
