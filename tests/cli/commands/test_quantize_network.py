"""Members of the zoo that are no decoders: what is taken, what is printed, and what is refused."""

import pytest

from anybit.cli.commands.quantize_network import is_network


def test_is_network(tmp_path, monkeypatch):
    assert is_network("resnet20") and not is_network("anybit-tiny") and not is_network("nothing")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resnet20").mkdir()
    assert not is_network("resnet20"), "a directory of that name comes first"


def test_quantize(anybit, shared_data, tmp_path):
    done = anybit("quantize", "dscnn-kws", tmp_path / "out", "--weights", "int4/g64", "--json")
    assert done.code == 0 and done.json["layers"] == 10 and done.json["method"] == "rtn"
    assert done.json["bytes"] == (tmp_path / "out" / "model.safetensors").stat().st_size
    again = anybit("quantize", "dscnn-kws", tmp_path / "out", "--weights", "int8/row")
    assert again.code == 2 and "exists; choose another output or pass --overwrite" in again.err
    again = anybit("quantize", "dscnn-kws", tmp_path / "out", "--weights", "int8/row", "--overwrite")
    assert again.code == 0 and "10 layers" in again.out and "anybit zoo eval" in again.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "say what the weights become; resnet20 takes --weights FORMAT"),
        (["--bits", "4"], "--bits is for decoders; resnet20 takes --weights FORMAT"),
        (["--weights", "int8/row", "--dry-run"], "--dry-run is for decoders"),
        (["--weights", "int8/banana"], "banana"),
        (["--weights", "int8/row", "--method", "magic"], "magic"),
    ],
)
def test_what_is_refused(anybit, shared_data, tmp_path, options, message):
    done = anybit("quantize", "resnet20", tmp_path / "out", *options)
    assert done.code == 2 and message in done.err and not (tmp_path / "out").exists()


def test_commands_for_decoders_say_what_to_use(anybit):
    done = anybit("eval", "resnet20")
    assert done.code == 2 and "is no decoder" in done.err and "anybit zoo eval" in done.err
