"""Which file system a path lies on, and whether SQLite's locks can be trusted there."""

from __future__ import annotations

import re
from pathlib import Path

# File systems of other machines, as Linux names them. SQLite's locks need every process to see them at once:
# https://www.sqlite.org/faq.html#q5 and https://www.sqlite.org/wal.html ("all processes must be on the same host").
NETWORK = (
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "lustre", "gpfs", "beegfs", "glusterfs", "pvfs2", "orangefs",
    "fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.goofys", "fuse.rclone", "fuse.ceph-fuse",
    "fuse.juicefs", "fuse.weka", "wekafs", "fuse.mfs",
)  # fmt: skip


def kind(path: Path, mounts: str = "/proc/self/mounts") -> str | None:
    """The type of the file system that holds `path`, such as ext4 or nfs4; None where the system does not tell."""
    try:
        lines = Path(mounts).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    place, found = path.resolve(), None
    longest = -1
    for line in lines:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[1]))
        # A later mount at the same point hides the earlier one.
        if place.is_relative_to(point) and len(point.parts) >= longest:
            longest, found = len(point.parts), fields[2]
    return found


def is_network(path: Path, mounts: str = "/proc/self/mounts") -> bool:
    """Whether `path` lies on a file system of another machine."""
    return kind(path, mounts) in NETWORK
