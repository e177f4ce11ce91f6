"""Texts are taken as they are written, whatever else their column holds."""

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from tuner.tables.table import RawTable


def written(path, *names):
    return {k: v.tolist() for k, v in RawTable.read(path).raw_strings(names).items()}


def csv(folder, text):
    path = folder / "texts.csv"
    path.write_bytes(text.encode())
    return path


def test_a_csv_file_is_taken_as_it_is_written(tmp_path):
    text = '\ufeff id , x,t\n01,1,NA\n\n1.0,2,"a,\nb"\nnull,3, None\n1e3,4\n'
    columns = written(csv(tmp_path, text), "id", "t")
    assert columns == {"id": ["01", "", "1.0", "null", "1e3"], "t": ["NA", "", "a,\nb", "None", ""]}


@given(
    rows=st.lists(st.sampled_from(["1", "01", "1.0", "x", "NA", "", "True", "a b"]), min_size=1),
    more=st.lists(st.sampled_from(["2", "2.5", "y", "None", "", "false"])),
)
def test_what_a_row_says_depends_on_no_other_row(tmp_path_factory, rows, more):
    path = csv(tmp_path_factory.mktemp("csv"), "".join(f"{r},0\n" for r in ["t", *rows, *more]))
    path.write_text(path.read_text().replace("t,0", "t,x", 1))
    assert written(path, "t")["t"] == [*rows, *more]


def test_a_token_may_be_a_space_in_the_last_row_too(tmp_path):
    for end in ("", "\n", "\r\n", "\n \n"):
        table = RawTable.read(csv(tmp_path, f"id,token\n1,a\n1, \n1,b \n2, {end}"))
        assert table.raw_strings(["token"], "token")["token"].tolist() == ["a", " ", "b", " "]
        assert table.frame["id"].tolist() == [1, 1, 1, 2]


def test_a_parquet_file_is_taken_as_if_it_were_written(tmp_path):
    columns = {
        "text": (["NA", None, ""], ["NA", "", ""]),
        "whole": ([1.0, np.nan, 3.0], ["1", "", "3"]),
        "int": (np.array([1, 2, 3], np.uint8), ["1", "2", "3"]),
        "bool": ([True, False, True], ["True", "False", "True"]),
        "float": ([0.5, 1.0, 2.0], ["0.5", "1", "2"]),
        "category": (pd.Categorical(["b", "a", None]), ["b", "a", ""]),
        "nullable": (pd.array([1, None, 3], dtype="Int64"), ["1", "", "3"]),
    }
    path = tmp_path / "texts.parquet"
    pd.DataFrame({name: values for name, (values, _) in columns.items()}).to_parquet(path)
    assert written(path, *columns) == {name: texts for name, (_, texts) in columns.items()}
