"""Tests of tables: how they look, and that pandas may be absent."""

from __future__ import annotations

import csv
import io
import sys

import pytest

from ridotto.simulate.table import SHOWN_ROWS, Table, data_frame

TABLE = Table(
    ("round", "loss", "lost"),
    ({"round": 1, "loss": 0.123456, "lost": "a, b"}, {"round": 2, "loss": None, "lost": ""}),
)


def test_columns_stand_under_their_names():
    assert repr(TABLE).splitlines() == ["round    loss  lost", "    1  0.1235  a, b", "    2       -     -"]


def test_a_long_table_shows_both_ends():
    table = Table(("round",), tuple({"round": number} for number in range(1, 101)))
    shown = repr(table).split()
    assert len(shown) == SHOWN_ROWS + 2
    assert (shown[1], shown[20], shown[21], shown[22], shown[-1]) == ("1", "20", "...", "81", "100")


def test_html_escapes_what_it_shows():
    table = Table(("<b>",), ({"<b>": "<script>"},))
    assert table._repr_html_() == (
        "<table><thead><tr><th>&lt;b&gt;</th></tr></thead><tbody><tr><td>&lt;script&gt;</td></tr></tbody></table>"
    )


def test_rows_and_columns_can_be_read():
    assert len(TABLE) == 2
    assert [row["round"] for row in TABLE] == TABLE["round"] == [1, 2]
    with pytest.raises(KeyError, match="there is no column 'accuracy'; the columns are round, loss, lost"):
        _ = TABLE["accuracy"]


def test_csv_keeps_every_digit():
    rows = list(csv.DictReader(io.StringIO(TABLE.csv())))
    assert rows == [{"round": "1", "loss": "0.123456", "lost": "a, b"}, {"round": "2", "loss": "", "lost": ""}]


def test_is_a_data_frame_where_pandas_is():
    pandas = pytest.importorskip("pandas", reason="pandas is an extra")
    frame = data_frame(TABLE)
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == list(TABLE.columns)
    assert frame["loss"].isna().tolist() == [False, True]


def test_is_a_table_of_our_own_where_pandas_is_not(monkeypatch):
    # None in sys.modules makes an import fail as if the package were not there.
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert data_frame(TABLE) is TABLE
