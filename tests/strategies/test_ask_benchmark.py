import runpy
import tempfile
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks/ask.py"


def test_the_benchmark_of_an_ask_leaves_nothing_behind(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["ask.py", "--asks", "1"])
    main = runpy.run_path(str(SCRIPT))["main"]
    main.__globals__.update(FEW=2, MANY=3)
    main()
    assert "journal, woa" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
