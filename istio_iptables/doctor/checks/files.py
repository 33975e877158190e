"""files: the locks, and what else a run opens for writing."""

from __future__ import annotations

from ... import remedies
from ...startup.record import Record
from ..model import Answer, doubtful, fine, refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...errors import KernelError


class LockFile(Record):
    """A lock, and whether it can be opened. `exists`: the file is there, so that it need not be made.

    `holder` is the process that holds it, nothing if it is free; `running` are the seconds since that was
    started, None if they are not known.
    """

    path: str
    exists: bool = True
    problem: KernelError | None = None
    holder: str = ""
    running: float | None = None


def lock_file(lock: LockFile, *, cni_mode: bool) -> Answer:
    """Check that the xtables lock file can be opened, or made."""
    if cni_mode:
        return fine("not needed: --cni-mode locks only the network namespace")
    if lock.problem:
        return refused(lock.problem)
    return fine(f"{lock.path} can be {'opened' if lock.exists else 'made'}")


def lock_held(locks: tuple[LockFile, ...], wait_limit: float) -> Answer:
    """Check that no other process holds a lock which a run takes, and so has to wait for."""
    held = [lock for lock in locks if lock.holder]
    if not held:
        return fine(f"free: {', '.join(lock.path for lock in locks)}")
    first = held[0]
    return doubtful(
        f"the lock {first.path} is held by {first.holder}: a run waits {wait_limit:g} seconds for it, then "
        "fails",
        remedies.lock_held(first.path, first.holder, wait_limit).remedy,
        *(f"{lock.path}: {lock.holder}{_running(lock)}" for lock in held),
    )


def _running(lock: LockFile) -> str:
    return f", started {lock.running:.0f} seconds ago" if lock.running is not None else ""


def dry_run_file(path: str, problem: str, *, dry_run: bool) -> Answer:
    """Check that the file of DRY_RUN_FILE_PATH can be written; `problem` is why not."""
    if not path:
        return fine("DRY_RUN_FILE_PATH is not set")
    if not dry_run:
        return fine(f"{path}: not written without --dry-run")
    if problem:
        return refused(remedies.dry_run_file_not_written(path, problem))
    return fine(f"{path} can be written")
