"""How much memory is free for a training: on a GPU what the driver says, else what machine and container leave."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_V2_LIMIT, _V2_USED, _V2_CACHE = "memory.max", "memory.current", "inactive_file"
_V1_LIMIT, _V1_USED, _V1_CACHE = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"


def free_bytes(device: "torch.device") -> int:
    """Return the bytes that can still be taken on a device.

    On a CPU the least of MemAvailable and of what each control group above the process leaves.
    """
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min([available_bytes(), *control_group_rooms()])


def available_bytes(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Return MemAvailable: the kernel's own estimate of what can be taken without swapping."""
    for line in meminfo.read_text(encoding="ascii").splitlines():
        name, _, size = line.partition(":")
        if name == "MemAvailable":
            return int(size.split()[0]) * 1024
    raise KeyError("MemAvailable")


def control_group_rooms(own: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """Return what each limited control group of this process leaves: limit - used + page cache that can be dropped.

    Version 2 has one tree (https://docs.kernel.org/admin-guide/cgroup-v2.html, Memory), version 1 one a controller. In
    a container the path in /proc may be the host's; the mounted tree then begins at the container's own group.
    """
    rooms = []
    if not own.is_file():
        return []
    for line in own.read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, names = mounted, (_V2_LIMIT, _V2_USED, _V2_CACHE)
        elif "memory" in controllers.split(","):
            top, names = mounted / "memory", (_V1_LIMIT, _V1_USED, _V1_CACHE)
        else:
            continue
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):
            room = _room(folder, *names)
            if room is not None:
                rooms.append(room)
            if folder == top:
                break
    return rooms


def _room(folder: Path, limit_name: str, used_name: str, cache_name: str) -> int | None:
    try:
        limit = (folder / limit_name).read_text(encoding="ascii").strip()
        if limit == "max":
            return None
        used = int((folder / used_name).read_text(encoding="ascii"))
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
    except FileNotFoundError:  # not this version's tree, or the host's path in a container
        return None
    return max(0, int(limit) - used + int(statistics.get(cache_name, 0)))
