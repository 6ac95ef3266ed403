"""Networks are listed, and shells learn the words."""

from __future__ import annotations

import pytest

from erfattr.cli import main


def test_networks_with_a_word_in_their_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--list-models", "VGG11"])
    assert ended.value.code == 0
    listed = capsys.readouterr().out.split()
    assert {"vgg11", "vgg11_bn"} <= {*listed}
    assert all("vgg11" in name for name in listed)


def test_all_of_torchvision(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--list-models"])
    listed = capsys.readouterr().out.splitlines()
    assert {"demo", "resnet50", "fcn_resnet50"} <= {*listed}
    assert listed[-1].endswith("module.path:factory: your own")


def test_no_such_network(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--list-models", "no such network"])
    assert ended.value.code == 2
    assert "expected a part of a network's name, got 'no such network'" in capsys.readouterr().err


def test_completion_of_a_shell(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab", reason="needs shtab")
    with pytest.raises(SystemExit):
        main(["--print-completion", "bash"])
    assert "--fail-if" in capsys.readouterr().out
