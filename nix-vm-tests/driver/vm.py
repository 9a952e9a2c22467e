"""The same machine with a kernel of its own: QEMU, which emulates the processor, over an image of the lab's tree.

```text
script --> VmMachine -- unix socket = /dev/hvc0 --> bash(1) of backdoor.service, as in NixOS's framework
```

A boot takes about ten seconds, a command a tenth of one; nothing here needs /dev/kvm.
"""

import base64
import socket
import subprocess
from pathlib import Path

from errors import MachineError
from log import Log
from machine import Machine

# The shell at the other end; it says the last word when it is ready to be told.
SHELL = """#!/bin/bash
export HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin SYSTEMD_PAGER= SYSTEMD_COLORS=0
cd /tmp
exec < /dev/hvc0 > /dev/hvc0 2> /dev/ttyS0
stty raw -echo
echo backdoor-is-open
exec bash --norc /dev/hvc0
"""
# Nothing here is as quick as a processor that is not emulated: neither units nor clients lose patience.
MANAGER = """[Manager]
DefaultEnvironment=CLIENTS_SLOWNESS=20
DefaultTimeoutStartSec=10min
DefaultTimeoutStopSec=5min
"""
READY = "backdoor-is-open"
SHELL_PLACE = "usr/lib/nixos-test/backdoor"

# cx16=off: QEMU 7.2 emulates cmpxchg16b so that the kernel's allocator breaks, now and then.
QEMU = """qemu-system-x86_64 -accel tcg,thread=multi -machine q35 -cpu max,cx16=off -m 1024 -smp 2 -nodefaults
 -no-user-config -display none -no-reboot -device nvme,drive=disk,serial=disk
 -device virtio-serial -device virtconsole,chardev=shell""".split()
KERNEL = "console=ttyS0 root=/dev/nvme0n1 rootfstype=ext4 rw panic=-1 quiet net.ifnames=0"


class VmMachine(Machine):
    """A virtual machine: its disk is made once, and what it writes stays over a reboot."""

    def __init__(self, name: str, log: Log, out_dir: Path, lab: Path, systemd: str, tree: Path) -> None:
        super().__init__(name, log, out_dir)
        self._lab, self._systemd, self._tree = lab, systemd, tree
        self._folder = tree.with_name(f"{tree.name}.vm")
        self._qemu: subprocess.Popen[bytes] | None = None
        self._shell: socket.socket | None = None
        self._heard = b""

    def start(self) -> None:
        if self.is_up():
            return
        disk, place = self._folder / "disk", self._folder / "shell"
        if not disk.exists():
            self._make_disk(disk)
        place.unlink(missing_ok=True)
        with self.nested("boot a kernel"), socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(place))
            listener.listen()
            listener.settimeout(30)
            kernel = subprocess.run([self._lab, "kernel"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
            words = [*QEMU, "-drive", f"file={disk},if=none,id=disk,format=raw,cache=unsafe"]
            words += ["-chardev", f"socket,id=shell,path={place}", "-serial", f"file:{self._folder / 'console'}"]
            # It is killed with us: nobody else would end it.
            words = ["setpriv", "--pdeathsig", "KILL", "--", *words, "-kernel", kernel, "-append", KERNEL]
            self._qemu = subprocess.Popen(words, stdin=subprocess.DEVNULL)
            self._shell, self._heard = listener.accept()[0], b""
            while self._line(180) != READY:
                pass

    def is_up(self) -> bool:
        return self._qemu is not None and self._qemu.poll() is None

    def wait_for_shutdown(self) -> None:
        with self.nested("waiting for its end"):
            if self._qemu is not None:
                self._qemu.wait()

    def release(self) -> None:
        if self._qemu is not None:
            self._qemu.kill()
            self._qemu.wait()
        if self._shell is not None:
            self._shell.close()

    def run(self, command: str) -> tuple[int, str]:
        self._say(f"{command} | (base64 -w 0; echo)")
        output = base64.b64decode(self._line(1000)).decode(errors="replace")
        self._say("echo ${PIPESTATUS[0]}")
        return int(self._line(60)), output

    def _say(self, line: str) -> None:
        assert self._shell is not None
        self._shell.sendall(f"{line}\n".encode())

    def _line(self, patience: float) -> str:
        """What the shell says next; `MachineError` if it says nothing for so many seconds, or is gone."""
        assert self._shell is not None
        self._shell.settimeout(patience)
        while b"\n" not in self._heard:
            more = self._shell.recv(65536)
            if not more:
                console = (self._folder / "console").read_text(errors="replace")
                raise MachineError(f"{self.name} is gone; its console ends so:\n{console[-2000:]}")
            self._heard += more
        line, _, self._heard = self._heard.partition(b"\n")
        return line.decode().strip()

    def _make_disk(self, disk: Path) -> None:
        """An image of the lab's tree, with the machine's own files over it."""
        shell = self._tree / SHELL_PLACE
        shell.parent.mkdir(parents=True)
        shell.write_text(SHELL)
        shell.chmod(0o755)
        manager = self._tree / "etc/systemd/system.conf.d/vm.conf"
        manager.parent.mkdir(parents=True)
        manager.write_text(MANAGER)
        (self._tree / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
        built = subprocess.run([self._lab, "build", self._systemd], check=True, stdout=subprocess.PIPE, text=True)
        root = built.stdout.split()[1]
        self._folder.mkdir()
        # The lab's tree is not to be touched, and not to be copied either.
        script = """
            mount --make-rprivate /
            mkdir "$3/root" && mount -t overlay -o "lowerdir=$2:$1" none "$3/root"
            truncate -s 1G "$4" && mke2fs -q -t ext4 -d "$3/root" "$4"
        """
        places = [root, str(self._tree), str(self._folder), str(disk)]
        words = ["unshare", "--mount", "bash", "-euc", script, "make", *places]
        with self.nested("make a disk"):
            subprocess.run(words, check=True)
