"""The name of a run hangs on every setting and on what files hold, not on where they lie."""

from train.identity import digest


def test_digest_depends_on_settings_and_on_the_files_bytes(tmp_path):
    file, other = tmp_path / "net", tmp_path / "other"
    file.write_bytes(b"a")
    other.write_bytes(b"a")
    first = digest("cifar10", file, 3)
    assert first == digest("cifar10", other, 3) and len(first) == 12
    other.write_bytes(b"b")
    assert (
        len(
            {
                first,
                digest("cifar10", other, 3),
                digest("cifar10", file, 4),
                digest("cifar100", file, 3),
            }
        )
        == 4
    )
