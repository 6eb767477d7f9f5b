"""Every fault that the doctor knows, planted in otherwise healthy findings, with what is to be said of it."""

from __future__ import annotations

from planted_file_faults import FILE_FAULTS
from planted_findings import (
    GIB,
    gpu,
    healthy,
    node,
    with_all_facts,
    with_second,
    with_second_facts,
)

from afa_llm.doctor.findings import Clock, Findings, Master, RankReport, Reached


def ranks(first: int, **second: object) -> list[RankReport]:
    done = {"stage": "reduced", "seconds": 0.004, "correct": True}
    return [RankReport(rank=first, **done), RankReport(rank=first + 1, **done | second)]


PLANTED: dict[str, tuple[Findings, str, str, str, str]] = {
    # what: (findings, check, verdict, part of what was found, part of the mend)
    "node silent": (
        with_second(trouble="Connection refused", mend="start sshd", facts=None),
        "nodes",
        "fail",
        "b: Connection refused",
        "start sshd",
    ),
    "two names, one machine": (
        with_second_facts(boot_id="boot of a", hostname="a"),
        "nodes",
        "warn",
        "a, b are one machine (a)",
        "once",
    ),
    "path that shells take apart": (
        healthy(launcher_paths=("/home/me/my runs", "/opt/python")),
        "nodes",
        "fail",
        "'/home/me/my runs'",
        "without blanks",
    ),
    "address that pdsh takes apart": (
        healthy([node("a"), node("2001:db8::1", 2), node("fd00::2", 4)]),
        "nodes",
        "warn",
        "of 2001:db8::1 for",
        "a name or an IPv4 address",
    ),
    "no pdsh": (healthy(launcher_found=False), "nodes", "warn", "pdsh", "--no_ssh"),
    "package differs": (
        with_second_facts(packages={"torch": "2.12.0", "deepspeed": "0.19.8"}),
        "versions",
        "fail",
        "torch: 2.13.0 on a, c; 2.12.0 on b",
        "one version of torch",
    ),
    "package for another torch": (
        with_second_facts(unfit={"torchvision": "0.28.0: operator torchvision::nms does not exist"}),
        "versions",
        "fail",
        "torchvision on b does not fit its torch: 0.28.0: operator torchvision::nms does not exist",
        "pip uninstall -y torchvision",
    ),
    "package missing": (
        with_second_facts(packages={"torch": "2.13.0", "deepspeed": None}),
        "versions",
        "fail",
        "deepspeed is missing on b",
        "install",
    ),
    "python differs": (with_second_facts(python="3.12.1"), "versions", "fail", "3.12.1 on b", "same environment"),
    "CUDA differs": (with_second_facts(cuda="12.8"), "versions", "fail", "12.8 on b", "same environment"),
    "NCCL differs": (with_second_facts(nccl="2.27.0"), "versions", "fail", "2.27.0 on b", "same environment"),
    "own code differs": (
        with_second_facts(afa_llm="0.1.0, code xyz"),
        "versions",
        "fail",
        "code xyz on b",
        "same code",
    ),
    "driver differs": (with_second_facts(driver="570.1"), "versions", "warn", "570.1 on b", "driver"),
    "driver, no usable GPU": (
        with_second_facts(gpus=()),
        "GPUs",
        "fail",
        "no GPU that torch can use on b",
        "CUDA build",
    ),
    "GPUs on some nodes only": (with_second_facts(gpus=(), driver=None), "GPUs", "fail", "none on b", "hostfile"),
    "fewer GPUs than slots": (with_second_facts(gpus=(gpu(),)), "GPUs", "fail", "b sees 1", "set slots=1"),
    "GPU models differ": (
        with_second_facts(gpus=(gpu(name="H200"),) * 2),
        "GPUs",
        "warn",
        "A100 on a, c; H200 on b",
        "pace",
    ),
    "no bfloat16": (with_second_facts(gpus=(gpu(bfloat16=False),) * 2), "GPUs", "warn", "b", "model.dtype=float32"),
    "GPU memory taken": (
        with_second_facts(gpus=(gpu(), gpu(free_bytes=12 * GIB))),
        "GPU memory",
        "warn",
        "b, GPU 1: 12.0 GiB of 80.0 GiB",
        "nvidia-smi",
    ),
    "too few cores": (
        with_second_facts(cores=1),
        "cores",
        "warn",
        "b: 2 processes × 1 thread(s) on 1 core(s)",
        "run.threads",
    ),
    "environment differs": (
        with_second_facts(environment={"OMP_NUM_THREADS": "1", "NCCL_IB_DISABLE": "1"}),
        "environment",
        "warn",
        "NCCL_IB_DISABLE: (unset) on a, c; 1 on b",
        ".deepspeed_env",
    ),
    "suites named for one node only": (
        with_second_facts(environment={"OMP_NUM_THREADS": "1", "AFA_DATA": "/data"}),
        "environment",
        "warn",
        "AFA_DATA: (unset) on a, c; /data on b",
        ".deepspeed_env",
    ),
    "left-over rank": (with_all_facts(environment={"WORLD_SIZE": "8"}), "environment", "warn", "WORLD_SIZE", "unset"),
    "accelerate on CPU": (
        with_all_facts(environment={"ACCELERATE_USE_CPU": "1"}),
        "environment",
        "warn",
        "ACCELERATE_USE_CPU",
        "drops DeepSpeed",
    ),
    "interface not there": (
        with_all_facts(environment={"NCCL_SOCKET_IFNAME": "ib0"}),
        "interfaces",
        "fail",
        "a, b, c: NCCL_SOCKET_IFNAME=ib0, but it has lo, eth0",
        "ip -br",
    ),
    "interfaces differ": (
        with_second_facts(environment={"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "eth0"}),
        "interfaces",
        "warn",
        "GLOO_SOCKET_IFNAME: (unset) on a, c; eth0 on b",
        ".deepspeed_env",
    ),
    "gloo on loopback": (
        with_all_facts(gpus=(), driver=None, own_address="127.0.1.1"),
        "interfaces",
        "warn",
        "a, b, c: gloo would listen on loopback",
        "GLOO_SOCKET_IFNAME",
    ),
    "small shared memory": (
        with_second_facts(shared_memory_bytes=64 * 2**20),
        "/dev/shm",
        "warn",
        "b: 64 MiB",
        "--shm-size",
    ),
    "no shared memory": (with_second_facts(shared_memory_bytes=None), "/dev/shm", "warn", "b: not there", "tmpfs"),
    "few open files": (with_second_facts(open_files=256), "limits", "warn", "b: ulimit -n is 256", "nofile 1024"),
    "locked memory": (
        with_second_facts(infiniband=True, locked_memory_bytes=64 * 1024),
        "limits",
        "warn",
        "64 KiB of locked",
        "memlock",
    ),
    "clock ahead": (
        with_second(clock=Clock(offset_s=103.5, uncertainty_s=0.01)),
        "clocks",
        "warn",
        "b is 3.5 s ahead of a",
        "chrony",
    ),
    "clock behind": (
        with_second(clock=Clock(offset_s=96.0, uncertainty_s=0.01)),
        "clocks",
        "warn",
        "b is 4.0 s behind a",
        "chrony",
    ),
    "no address": (
        healthy(master=Master(address=None, port=1), trial=None),
        "master port",
        "fail",
        "a",
        "--master-addr",
    ),
    "port taken": (
        healthy(master=Master(address="10.0.0.1", port=29500, trouble="Address already in use"), trial=None),
        "master port",
        "fail",
        "10.0.0.1:29500 on a: address already in use",
        "--master-port",
    ),
    "address of another": (
        healthy(master=Master(address="10.9.9.9", port=1, trouble="Cannot assign requested address"), trial=None),
        "master port",
        "fail",
        "10.9.9.9:1",
        "--master-addr",
    ),
    "head not reached": (
        with_second(reached=Reached(resolved="10.0.0.1", trouble="connection refused", seconds=None)),
        "way to the head",
        "fail",
        "b to 10.0.0.1:29500: connection refused",
        "firewall",
    ),
    "rank stuck": (
        with_second(ranks=ranks(2, stage="started", error="no end within 90 s")),
        "all-reduce",
        "fail",
        "rank 3 on b did not meet the others: no end within 90 s",
        "NCCL_SOCKET_IFNAME",
    ),
    "rank failed after the sum": (
        with_second(ranks=ranks(2, error="it broke")),
        "all-reduce",
        "fail",
        "rank 3 on b failed at the end: it broke",
        "NCCL",
    ),
    "node silent in the sum": (with_second(ranks=None), "all-reduce", "fail", "a node fell silent", "nodes"),
    "wrong sum": (with_second(ranks=ranks(2, correct=False)), "all-reduce", "fail", "wrong sum on b", "take the node"),
    "slow": (with_second(ranks=ranks(2, seconds=1.0)), "all-reduce", "warn", "0.02 GB/s: slow", "NCCL_IB_DISABLE"),
    **FILE_FAULTS,
}
