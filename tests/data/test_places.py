import pyarrow as pa
import pyarrow.parquet as pq

from hf_maskattn.data.local_files import find_files
from hf_maskattn.data.places import Place, Places


def test_rows_of_files_are_named_by_file_and_line(tmp_path):
    (tmp_path / "a.csv").write_text("text\na\nb\n")
    (tmp_path / "b.csv").write_text('text\n"c\nd"\ne\n')
    places = Places(find_files(tmp_path / "*.csv"))
    assert [str(places(row)).rpartition("/")[2] for row in range(4)] == [
        "a.csv, line 2",
        "a.csv, line 3",
        "b.csv, line 3",
        "b.csv, line 4",
    ]
    assert str(places.select([3, 1])(0)).endswith("b.csv, line 4")
    assert str(places.select([3, 1]).select([1])(0)).endswith("a.csv, line 3")


def test_rows_of_parquet_are_counted_in_their_file(tmp_path):
    for name in "ab":
        pq.write_table(pa.table({"text": ["a", "b"]}), tmp_path / f"{name}.parquet")
    assert str(Places(find_files(tmp_path / "*.parquet"))(2)) == f"row 0 of {tmp_path / 'b.parquet'} (counted from 0)"


def test_rows_without_files_are_counted():
    assert str(Places()(3)) == "row 3 (counted from 0)"
    assert str(Place(3, source="shard 1 of 2")) == "row 3 of shard 1 of 2 (counted from 0)"
