"""What the machine tells: instruction sets, caches, cores, quotas, and the denormal mode."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

from lamina import config
from lamina.llvm import engine, host
from lamina.llvm.binding import llvm

FORCED = ("avx512", "avx2", "sse2", "neon")


def test_the_detected_target_fits_this_machine():
    found = host.detect()
    assert found.architecture == host.architecture()
    assert found.cpu == llvm().get_host_cpu_name() or found.name == "sse2"
    assert found.vector_bytes == 4 * found.lanes
    assert host.can_run(found)


@pytest.mark.parametrize(
    ("name", "lanes", "registers", "fma", "masks"),
    [
        ("avx512", 16, 32, True, True),
        ("avx2", 8, 16, True, False),
        ("sse2", 4, 16, False, False),
        ("neon", 4, 32, True, False),
    ],
)
def test_forced_targets(name, lanes, registers, fma, masks):
    one = host.target(name)
    assert (one.name, one.lanes, one.registers) == (name, lanes, registers)
    assert (one.has_fma, one.has_masks) == (fma, masks)
    assert one.key != host.target("sse2" if name != "sse2" else "avx2").key


@pytest.mark.parametrize(
    ("name", "register"), [("avx512", "zmm"), ("avx2", "ymm"), ("sse2", "xmm")]
)
def test_assembly_of_a_forced_target_shows_its_width(name, register):
    target = host.target(name)
    vector = f"<{target.lanes} x float>"
    text = f"""
define void @add(ptr %a, ptr %b) {{
  %x = load {vector}, ptr %a, align 4
  %y = load {vector}, ptr %b, align 4
  %z = fadd {vector} %x, %y
  store {vector} %z, ptr %a, align 4
  ret void
}}"""
    assembly = engine.assembly(text, target)
    assert f"{register}0" in assembly
    wider = {"avx2": "zmm", "sse2": "ymm"}.get(name)
    assert wider is None or wider not in assembly


def test_neon_assembly_is_made_on_any_machine():
    text = "define <4 x float> @add(<4 x float> %x) { %y = fadd <4 x float> %x, %x ret <4 x float> %y }"
    assert "fadd\tv0.4s" in engine.assembly(text, host.target("neon"))


def test_a_set_that_this_machine_lacks_is_refused():
    other = "neon" if host.architecture() == "x86_64" else "avx2"
    with config.override(cpu=other), pytest.raises(host.HostError) as caught:
        host.detect()
    assert f"llvm: this machine cannot run {other} code." in str(caught.value)
    assert "LAMINA_CPU" in str(caught.value)


@pytest.mark.parametrize("name", FORCED)
def test_config_forces_the_target(name):
    if not host.can_run(host.target(name)):
        pytest.skip(f"this machine has no {name}")
    with config.override(cpu=name):
        assert host.detect() == host.target(name)


def test_features_are_known_to_llvm(capfd):
    for name in FORCED:
        engine.compile_text("define void @nothing() { ret void }", host.target(name))
    assert capfd.readouterr() == ("", "")


def test_the_processor_is_told_apart_by_what_does_not_change(tmp_path):
    text = "processor\t: 0\nvendor_id\t: X\nmodel\t\t: 3\ncpu MHz\t\t: {}\nflags\t\t: a b\n\nprocessor\t: 1\n"
    file = tmp_path / "cpuinfo"
    file.write_text(text.format(1000))
    first = host._identity(file)
    assert first == "vendor_id\t: X\nmodel\t\t: 3\nflags\t\t: a b"
    file.write_text(text.format(2000))
    assert host._identity(file) == first
    file.write_text(text.format(2000).replace("a b", "a b c"))
    assert host._identity(file) != first
    assert host._identity(tmp_path / "none") is None


@pytest.mark.skipif(sys.platform != "linux", reason="the processor is told by /proc/cpuinfo")
def test_a_second_start_describes_the_machine_without_llvm(tmp_path):
    program = """
import sys
from lamina.llvm import host
print(host.detect().key, host.target("sse2").key, host.target("avx2").key)
print("llvmlite.binding" in sys.modules)
"""
    environment = {**os.environ, "LAMINA_CACHE": str(tmp_path / "objects")}
    outputs = [
        subprocess.run(
            [sys.executable, "-c", program],
            check=True,
            capture_output=True,
            text=True,
            env=environment,
        ).stdout.splitlines()
        for _ in range(2)
    ]
    assert outputs[0][0] == outputs[1][0]
    assert [lines[1] for lines in outputs] == ["True", "False"]


def test_caches_and_cores_are_plausible():
    caches = host.caches()
    assert 8 << 10 <= caches.level_1 <= caches.level_2 <= caches.shared
    assert 1 <= host.cores() <= (os.cpu_count() or 1)
    assert len(host.affinity()) <= (os.cpu_count() or 1)


def test_linux_caches_are_read_by_level(tmp_path):
    for index, (level, kind, size) in enumerate(
        [
            (1, "Data", "48K"),
            (1, "Instruction", "32K"),
            (2, "Unified", "2M"),
            (3, "Unified", "36864K"),
        ]
    ):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        (folder / "level").write_text(f"{level}\n")
        (folder / "type").write_text(f"{kind}\n")
        (folder / "size").write_text(f"{size}\n")
    assert host._linux_caches(tmp_path) == {1: 48 << 10, 2: 2 << 20, 3: 36 << 20}
    assert host._linux_caches(tmp_path / "nowhere") == {}


def test_siblings_count_once(tmp_path):
    for processor, siblings in enumerate(["0,2", "1,3", "0,2", "1,3"]):
        folder = tmp_path / f"cpu{processor}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings + "\n")
    assert host._physical_cores(tmp_path, [0, 1, 2, 3]) == 2
    assert host._physical_cores(tmp_path, [0, 2]) == 1
    assert host._physical_cores(tmp_path, [7, 8]) == 2


def test_quota_of_cgroup_v2_counts_ancestors(tmp_path):
    write(tmp_path / "proc/self/cgroup", "0::/user/app\n")
    write(tmp_path / "sys/fs/cgroup/user/app/cpu.max", "max 100000\n")
    assert host.cgroup_quota(tmp_path) is None
    write(tmp_path / "sys/fs/cgroup/user/cpu.max", "150000 100000\n")
    assert host.cgroup_quota(tmp_path) == 1.5
    write(tmp_path / "sys/fs/cgroup/cpu.max", "50000 100000\n")
    assert host.cgroup_quota(tmp_path) == 0.5


def test_quota_of_cgroup_v1(tmp_path):
    write(tmp_path / "proc/self/cgroup", "4:memory:/a\n3:cpu,cpuacct:/docker/x\n")
    base = tmp_path / "sys/fs/cgroup/cpu,cpuacct"
    write(base / "docker/x/cpu.cfs_quota_us", "-1\n")
    write(base / "docker/x/cpu.cfs_period_us", "100000\n")
    assert host.cgroup_quota(tmp_path) is None
    # Inside of a container only the root of its own group is mounted.
    write(base / "cpu.cfs_quota_us", "200000\n")
    write(base / "cpu.cfs_period_us", "100000\n")
    assert host.cgroup_quota(tmp_path) == 2.0


def test_no_cgroups_no_quota(tmp_path):
    assert host.cgroup_quota(tmp_path) is None
    write(tmp_path / "proc/self/cgroup", "0::/\n")
    write(tmp_path / "sys/fs/cgroup/cpu.max", "nonsense\n")
    assert host.cgroup_quota(tmp_path) is None


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_denormals_are_flushed_and_the_callers_mode_comes_back():
    text = (
        host.denormal_text(host.target("native"))
        + """
define float @flushed(float %x, float %y) {
  %mode = call i64 @lamina_flush()
  %product = call float @multiply(float %x, float %y)
  call void @lamina_unflush(i64 %mode)
  ret float %product
}
define float @plain(float %x, float %y) {
  %product = call float @multiply(float %x, float %y)
  ret float %product
}
define internal float @multiply(float %x, float %y) noinline {
  %product = fmul float %x, %y
  ret float %product
}"""
    )
    loaded = engine.load(engine.compile_text(text))
    kind = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_float, ctypes.c_float)
    flushed, plain = kind(loaded.address("flushed")), kind(loaded.address("plain"))
    assert plain(1e-30, 1e-10) != 0.0  # a denormal result
    assert flushed(1e-30, 1e-10) == 0.0
    assert flushed(1e-42, 1.0) == 0.0  # a denormal input
    assert flushed(1e-20, 1e-10) == plain(1e-20, 1e-10) != 0.0
    assert plain(1e-30, 1e-10) != 0.0
    assert float("5e-324") > 0.0
