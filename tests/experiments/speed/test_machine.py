"""What is said of the machine, from files as Linux writes them."""

from experiments.speed import machine


def write_cache(folder, level, kind, size):
    folder.mkdir()
    for name, value in (("level", level), ("type", kind), ("size", size)):
        (folder / name).write_text(f"{value}\n")


def test_caches_are_read_where_linux_tells_them(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "CACHES", tmp_path)
    assert machine.cache_bytes(2) is None
    assert "L2 unknown per core" in machine.machine_in_words()
    write_cache(tmp_path / "index0", 2, "Instruction", "64K")
    write_cache(tmp_path / "index1", 2, "Unified", "512K")
    write_cache(tmp_path / "index2", 3, "Unified", "32768K")
    assert machine.cache_bytes(2) == 512 * 1024
    assert "L2 0.5 MiB per core, L3 32 MiB" in machine.machine_in_words()
